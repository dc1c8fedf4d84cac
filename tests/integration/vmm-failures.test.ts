/**
 * What becomes of a VMM whose memory cannot be filled: it is killed, or left standing where it waits,
 * and it is said for which page and why. It never reads a byte that was not the guest's. The VMM is
 * examples/vmm.c, which checks every byte that it reads.
 */
import { afterAll, expect } from "bun:test";
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import type { DestReport } from "../../src/report/report.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { Link } from "../helpers/link.ts";
import { Role, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, RoleEnd } from "../helpers/migration.ts";
import { needCompiler, needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { PROJECT_ROOT, spawn, withJournal } from "../helpers/spawn.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { keptMemory, removeVmm, startVmm } from "../helpers/vmm.ts";

const vmmTest = requireOrSkip(needQemu(), needUserfaultfd(), needCompiler());
afterAll(removeVmm);

/** The push takes minutes: what the VMM reads it asks for. */
const SLOW = ["--max-postcopy-bandwidth", "256KiB/s", "--no-record"] as const;
/** A source that is gone for this long is gone. */
const IMPATIENT = ["--recover-timeout", "1s"] as const;

const PLACE =
  /faults on 1 page wait, the longest \(.+\) at offset (0x[\da-f]+) of region 0 \((0x[\da-f]+) of pc\.ram at the source\)/;

/** A directory with the socket of a VMM, and the memory that it is to have. */
async function prepare(directory: TemporaryDirectory) {
  return { socket: directory.file("vmm"), ...(await keptMemory()) };
}

/** The text of a warning; fails where there is none. */
function warning(end: RoleEnd<unknown>, code: string): string {
  const found = end.events.find((event) => event.event === "warning" && event.code === code);
  if (found?.event !== "warning") throw new Error(`no ${code} in:\n${end.stderr}`);
  return found.message;
}

/** Waits until a thread of a VMM waits for a page (handle_userfault of the kernel). */
async function expectFrozen(vmm: RunningProgram): Promise<void> {
  const tasks = `/proc/${vmm.pid}/task`;
  const waits = (): boolean =>
    readdirSync(tasks).some((task) => {
      return readFileSync(join(tasks, task, "wchan"), "latin1").includes("userfault");
    });
  await waitUntil(waits, "a thread of the VMM that waits for a page");
  expect(vmm.running).toBe(true);
  expect({ stdout: vmm.stdout.text, stderr: vmm.stderr.text }).toEqual({ stdout: "", stderr: "" });
}

/** Loses the source of a VMM that is being filled; returns how `dest` ended. */
async function loseSource(onFailure: string, see: (vmm: RunningProgram) => Promise<void>) {
  await using directory = new TemporaryDirectory("vmm-lost");
  const { socket, guest, file } = await prepare(directory);
  const flags = [...IMPATIENT, "--on-failure", onFailure];
  await using dest = await startDest({ guest: `uffd:${socket}`, flags });
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await dest.event("handover");
  await using link = await Link.start(dest.peer);
  await using source = startSource({ guest, to: link.uri, flags: SLOW });
  await dest.phase("postcopy");
  source.program.kill();
  await dest.phase("paused");
  vmm.writeLine("read");
  const end = await dest.end();
  await see(vmm);
  return { end, pid: vmm.pid };
}

vmmTest(
  "the source is lost for good: the VMM is killed, and it is said for which page",
  async () => {
    const { end, pid } = await loseSource("kill", async (vmm) => {
      expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
    });
    expect(end).toMatchObject({ exitCode: 1, report: { outcome: "failed" } });
    const message = warning(end, "VMM_KILLED");
    expect(message).toStartWith(`The memory of the VMM (process ${pid}) is filled no more: `);
    const [, inRegion, inBlock] = PLACE.exec(message) ?? [];
    expect(inRegion).toBe(inBlock ?? "no page is named");
  },
);

vmmTest("the same with --on-failure freeze: it lives, stands, and has read no zero", async () => {
  const { end, pid } = await loseSource("freeze", expectFrozen);
  expect(end.exitCode).toBe(1);
  const message = warning(end, "VMM_FROZEN");
  expect(message).toMatch(PLACE);
  expect(message).toContain(`kill -KILL ${pid}`);
});

vmmTest("a page that the source finds damaged is named, and the VMM is killed", async () => {
  await using directory = new TemporaryDirectory("vmm-damage");
  const { socket, guest, file } = await prepare(directory);
  const damaged = directory.file("guest");
  cpSync(guest.slice("snapshot:".length), damaged, { recursive: true });
  const ram = readFileSync(join(damaged, "ram-0.bin"));
  const at = 5000 * 4096;
  ram[at] = (ram[at] ?? 0) ^ 1;
  writeFileSync(join(damaged, "ram-0.bin"), ram);
  await using dest = await startDest({ guest: `uffd:${socket}`, flags: IMPATIENT });
  await using vmm = await startVmm(socket, "--expect", file);
  await using source = startSource({ guest: `snapshot:${damaged}`, to: dest.peer, flags: SLOW });
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect(sent.stderr).toContain("the page at 20480000 of ram-0.bin (pc.ram)");
  const [, inRegion] = PLACE.exec(warning(got, "VMM_KILLED")) ?? [];
  expect(Number(inRegion)).toBe(at);
  expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
});

vmmTest("dest is killed and nobody keeps the userfaultfd: the VMM stands, for ever", async () => {
  await using directory = new TemporaryDirectory("vmm-kill");
  const { socket, guest, file } = await prepare(directory);
  await using dest = await startDest({ guest: `uffd:${socket}` });
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await dest.event("handover");
  await using source = startSource({ guest, to: dest.peer, flags: SLOW });
  await dest.phase("postcopy");
  dest.program.kill();
  await dest.program.finish();
  vmm.writeLine("read");
  await expectFrozen(vmm);
  source.program.kill();
});

vmmTest("the VMM is killed: dest ends at once, with an exit code of its own", async () => {
  await using directory = new TemporaryDirectory("vmm-death");
  const { socket, guest, file } = await prepare(directory);
  // Before a source has come, and while pages come.
  for (const sends of [false, true]) {
    await using dest = await startDest({ guest: `uffd:${socket}` });
    await using vmm = await startVmm(socket, "--expect", file, "--wait");
    await dest.event("handover");
    await using source = startSource({ guest, to: sends ? dest.peer : "exec:cat", flags: SLOW });
    if (sends) await dest.phase("postcopy");
    vmm.kill();
    const end = await dest.end();
    expect(end).toMatchObject({
      exitCode: 4,
      error: { code: "VMM_GONE", message: "The VMM whose memory is filled has ended" },
      report: { outcome: "failed", error: { code: "VMM_GONE" } },
    });
    expect(end.stderr).not.toContain("is killed");
    source.program.kill();
  }
});

vmmTest(
  "a VMM that connects and ends before it has handed over: dest says so and ends",
  async () => {
    await using directory = new TemporaryDirectory("vmm-silent");
    const { socket } = await prepare(directory);
    await using dest = await startDest({ guest: `uffd:${socket}` });
    await waitUntil(() => dest.program.stderr.text.includes("Waiting for a VMM"), "the socket");
    const connection = connect(socket);
    connection.on("error", () => undefined);
    connection.end("[");
    expect(await dest.end()).toMatchObject({ exitCode: 1, error: { code: "CUT_HANDOVER" } });
  },
);

const MORTAL = join(PROJECT_ROOT, "tests", "fixtures", "dying-thread.ts");

/** Fills a VMM by a dest whose thread dies in the middle of it. */
async function loseThread(thread: string): Promise<RoleEnd<DestReport>> {
  await using directory = new TemporaryDirectory("vmm-mortal");
  const { socket, guest, file } = await prepare(directory);
  const die = directory.file("die");
  const words = ["dest", "--json", "--guest", `uffd:${socket}`, "--listen", "tcp:127.0.0.1:0"];
  const command = [process.execPath, MORTAL, thread, die, ...withJournal(words)];
  await using dest: DestRole = new Role<DestReport>(spawn(command));
  const { peer } = await dest.event("listening");
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await dest.event("handover");
  await using source = startSource({ guest, to: peer, flags: SLOW });
  await dest.event("running");
  writeFileSync(die, "");
  // Its faults are what the fault thread looks at next.
  vmm.writeLine("read");
  const end = await dest.end();
  expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
  source.program.kill();
  return end;
}

vmmTest("a thread of dest ends by itself: the VMM is killed", async () => {
  const threads = ["incoming", "listen", "fault", "main"].map(async (thread) => {
    const end = await loseThread(thread);
    const error = { message: `the ${thread} thread ended by itself` };
    expect(end).toMatchObject({ exitCode: 1, error });
    expect(warning(end, "VMM_KILLED")).toContain("is filled no more");
  });
  await Promise.all(threads);
});
