/**
 * The memory of a Firecracker microVM, served from its memory files: all of it, nothing of
 * what is damaged, and to nobody who cannot take it.
 */
import { expect } from "bun:test";
import { existsSync, readFileSync, utimesSync } from "node:fs";

import { runAnalyze } from "../helpers/analysis.ts";
import { memoryOf, pageBytes, writeMemoryFile } from "../helpers/memory-files.ts";
import type { Contents } from "../helpers/memory-files.ts";
import { NO_RECOVERY, startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const memoryTest = requireOrSkip(needUserfaultfd());

/** 8 MiB. */
const PAGES = 2048;

/** A byte for each page from `first` on, `step` apart. */
function every(step: number, first: number, value: (page: number) => number): Contents {
  const contents: Contents = {};
  for (let page = first; page < PAGES; page += step) contents[page] = value(page);
  return contents;
}

const FULL = every(1, 100, (page) => 1 + (page % 100));
const FIRST = every(7, 0, (page) => 101 + (page % 50));
const SECOND = every(11, 3, (page) => 151 + (page % 100));

/** A guest in three files, whose word names them. */
function writeGuest(directory: TemporaryDirectory): { word: string; files: string[] } {
  const contents = { "full,1": FULL, first: FIRST, second: SECOND };
  const files = Object.entries(contents).map(([name, pages]) => {
    return writeMemoryFile(directory.file(name), PAGES, pages);
  });
  const [full = "", ...diffs] = files;
  return { word: `firecracker:${[full.replace(",", ",,"), ...diffs].join(",")}`, files };
}

memoryTest("a full snapshot and two diffs are kept as one guest, byte for byte", async () => {
  await using directory = new TemporaryDirectory("firecracker");
  const { word, files } = writeGuest(directory);
  const kept = directory.file("kept");
  await using dest = await startDest({ guest: `snapshot:${kept}` });
  await using source = startSource({ guest: word, to: dest.peer });
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(sent.report.guest).toBe(`memory of a Firecracker microVM in ${files.join(", ")}`);
  const memory = memoryOf(PAGES, FULL, FIRST, SECOND);
  expect(pageBytes(readFileSync(`${kept}/ram-0.bin`))).toEqual(memory);
  expect(got.report.snapshot?.pagesStored).toBe(memory.filter((byte) => byte !== 0).length);
  expect(got.stderr).toContain(`postcopy dest --guest uffd:SOCKET --from snapshot:${kept}`);
  // Who keeps it asks for nothing, so there is nothing to record.
  expect(existsSync(`${files.at(-1)}.postcopy-working-set`)).toBe(false);

  const { analysis } = await runAnalyze(word);
  expect(analysis).toMatchObject({ kind: "memory", path: word, workingSetPages: null });

  // What was kept of it is no more for a QEMU than its files are.
  const words = ["--guest", `snapshot:${kept}`, "--run", "qemu-system-x86_64"];
  const { exitCode, stderr } = await run(postcopyCommand("source", ...words));
  expect({ exitCode, stderr }).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining("No QEMU can run the snapshot of firecracker") as string,
  });
});

memoryTest("a diff that changes while it is served: named, and nothing of it is sent", async () => {
  await using directory = new TemporaryDirectory("firecracker");
  const { word, files } = writeGuest(directory);
  const kept = directory.file("kept");
  await using dest = await startDest({ guest: `snapshot:${kept}`, flags: NO_RECOVERY });
  const flags = ["--max-postcopy-bandwidth", "8MiB/s", ...NO_RECOVERY];
  await using source = startSource({ guest: word, to: dest.peer, flags });
  await source.phase("postcopy");
  const [, , diff = ""] = files;
  utimesSync(diff, 1, 1);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent.exitCode, got.exitCode]).toEqual([1, 1]);
  expect(sent.stderr).toMatch(/page at \d+ of .*second has changed since it was opened/);
  expect(existsSync(`${kept}/manifest.json`)).toBe(false);
});

const qemuTest = requireOrSkip(needUserfaultfd(), needQemuVersion("7.2"));

qemuTest("a QEMU 7.2 takes no memory of Firecracker: both ends say so", async () => {
  await using directory = new TemporaryDirectory("firecracker");
  const { word } = writeGuest(directory);
  await using qemu = await startQemu({ program: qemuProgram("7.2"), incoming: "defer" });
  await enablePostcopy(qemu);
  const to = `tcp:127.0.0.1:${await qemu.listen()}`;
  await using source = startSource({ guest: word, to });
  const { exitCode, error } = await source.end();
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "MIGRATION_FAILED" });
  expect(error?.hints.join()).toContain("postcopy dest --guest uffd:SOCKET");
  await qemu.program.finish();
  expect(qemu.program.stderr.text).toContain("Machine type received is 'firecracker'");
});
