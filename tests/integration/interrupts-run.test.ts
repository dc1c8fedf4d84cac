/**
 * Ctrl-C at `source --run` while its QEMU is starting, which may take minutes: the program ends at
 * once, and leaves nothing behind, neither that QEMU nor a file.
 */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { LONG_TEST_MS, waitUntil } from "../helpers/deadline.ts";
import { filledPage, KeptGuest } from "../helpers/kept-guest.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

/** A kept guest of one page, a directory for what is temporary, and how to restore it. */
function prepare(place: TemporaryDirectory): { temporary: string; words: string[] } {
  const directory = place.file("kept");
  const temporary = place.file("temporary");
  for (const each of [directory, temporary]) mkdirSync(each);
  const kept = new KeptGuest(directory, [{ name: "pc.ram", length: 4096, pageSize: 4096 }]);
  kept.store(kept.precopy, 0, 0, filledPage(1));
  kept.finish();
  return { temporary, words: ["source", "--guest", `snapshot:${directory}`, "--run"] };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test(
  "while QEMU is starting",
  async () => {
    await using place = new TemporaryDirectory("interrupted");
    const { temporary, words } = prepare(place);
    const pidFile = place.file("pid");
    // A QEMU that never has a monitor.
    const command = `echo $$ >'${pidFile}.tmp' && mv '${pidFile}.tmp' '${pidFile}' && exec sleep 600 #`;
    const environment = { TMPDIR: temporary };
    await using program = spawn(postcopyCommand(...words, command), { environment });
    await waitUntil(() => existsSync(pidFile), "a QEMU that is starting");
    const pid = Number(readFileSync(pidFile, "utf8"));
    program.kill("SIGINT");
    expect(await program.finish()).toMatchObject({ exitCode: 130 });
    await waitUntil(() => !isAlive(pid), "the end of that QEMU");
    expect(readdirSync(temporary)).toEqual([]);
  },
  LONG_TEST_MS,
);

test(
  "a --run-log that cannot be written starts nothing",
  async () => {
    await using place = new TemporaryDirectory("run-log");
    const { temporary, words } = prepare(place);
    const log = ["--run-log", place.file("absent/log")];
    const environment = { TMPDIR: temporary };
    await using program = spawn(postcopyCommand(...words, "true", ...log), { environment });
    const { exitCode, stderr } = await program.finish();
    expect(exitCode).toBe(2);
    expect(stderr).toContain("Flag --run-log: ");
    expect(readdirSync(temporary)).toEqual([]);
  },
  LONG_TEST_MS,
);
