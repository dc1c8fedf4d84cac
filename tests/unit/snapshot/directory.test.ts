/** What makes a directory durable is seen from outside: its system calls. */
import { expect, test } from "bun:test";
import { mkdirSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { tryLock } from "../../../syscalls/flock.ts";
import { prepareDirectory } from "../../../src/guests/snapshot/directory.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { SnapshotTable } from "../../../src/guests/snapshot/page-table.ts";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { needStrace, requireOrSkip } from "../../helpers/need.ts";
import { postcopyCommand, run } from "../../helpers/spawn.ts";
import { withFaults } from "../../helpers/traced-calls.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

requireOrSkip(needStrace())("every level that is created is made durable above it", async () => {
  await using directory = new TemporaryDirectory("levels");
  mkdirSync(directory.file("there"));
  const trace = directory.file("trace");
  const guest = `snapshot:${directory.file("there/a/b/c")}`;
  // The peer is a descriptor that is not open: the command ends once the directory is ready.
  const command = postcopyCommand("dest", "--guest", guest, "--listen", "fd:999");
  await run(["strace", "-f", "-y", "-e", "trace=fsync", "-o", trace, ...command]);
  const synced = [...readFileSync(trace, "utf8").matchAll(/fsync\(\d+<([^>]*)>/g)];
  const expected = ["there", "there/a", "there/a/b"].map((name) => directory.file(name));
  expect(new Set(synced.map(([, path]) => path))).toEqual(new Set(expected));
});

/** NFS locks a file that is open for writing, and no directory. */
requireOrSkip(needStrace())("where a directory cannot be locked, a file in it is", async () => {
  await using directory = new TemporaryDirectory("locked");
  const path = directory.file("guest");
  const words = postcopyCommand("dest", "--guest", `snapshot:${path}`, "--listen", "fd:999");
  const asOnNfs = [...withFaults(["flock:error=EBADF"], { paths: [path] }), ...words];
  expect((await run(asOnNfs)).stderr).toContain("fd:999 is not an open descriptor");
  expect(readdirSync(path)).toEqual(["lock"]);
  expect(tryLock(openSync(join(path, "lock"), "r+"))).toBe(true);
  expect(await run(asOnNfs)).toMatchObject({ exitCode: 2 });
  expect((await run(asOnNfs)).stderr).toContain(`Another process is receiving a guest in ${path}`);
});

test("a snapshot that is removed, and another one in its place: what was opened is served on", async () => {
  await using directory = new TemporaryDirectory("again");
  const path = directory.file("guest");
  const setup = [{ name: "pc.ram", length: 16 * 4096, pageSize: 4096 }];
  const keep = (byte: number): void => {
    rmSync(path, { recursive: true, force: true });
    prepareDirectory(path);
    const kept = new KeptGuest(path, setup);
    kept.store(kept.precopy, 0, 3, filledPage(byte));
    kept.finish();
  };
  keep(1);
  const snapshot = openSnapshot(path);
  keep(2);
  const target = new Uint8Array(4096);
  const [block] = snapshot.blocks;
  if (block === undefined) throw new Error("no block");
  new StoredPages(new SnapshotTable(snapshot)).copyPage(block, 3 * 4096, target, 0);
  expect(Buffer.compare(target, filledPage(1))).toBe(0);
});
