/** What makes a directory durable is seen from outside: its system calls. */
import { expect } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { needStrace, requireOrSkip } from "../../helpers/need.ts";
import { postcopyCommand, run } from "../../helpers/spawn.ts";
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
