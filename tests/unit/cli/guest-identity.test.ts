/** Which guest in files it is: the same wherever they lie, and never that of others of the same size. */
import { expect, test } from "bun:test";
import { copyFileSync, utimesSync, writeFileSync } from "node:fs";
import { guestIdentity } from "../../../src/commands/guest-identity.ts";
import { sampleOf } from "../../../src/guests/stored/file-sample.ts";
import { IDENTITY_TEXT } from "../../../src/stream/identity.ts";
import { memoryOf, PAGE_BYTES, writeMemoryFile } from "../../helpers/memory-files.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGES = 640;

test("files are known by their content too, where size and time are alike", async () => {
  await using directory = new TemporaryDirectory("identity");
  const [full, copy, other] = ["full", "copy", "other"].map((name) => directory.file(name));
  if (full === undefined || copy === undefined || other === undefined) throw new Error("no names");
  writeMemoryFile(full, PAGES, { 0: 1, 10: 2 });
  writeMemoryFile(other, PAGES, { 0: 1, 10: 3 });
  // Without its holes.
  const bytes = memoryOf(PAGES, { 0: 1, 10: 2 });
  writeFileSync(copy, Buffer.concat(bytes.map((byte) => Buffer.alloc(PAGE_BYTES, byte))));
  for (const path of [full, copy, other]) utimesSync(path, 1, 1);
  const identityOf = (...files: string[]) => guestIdentity({ kind: "firecracker", files });
  expect(identityOf(full)).toMatch(IDENTITY_TEXT);
  expect(identityOf(copy)).toBe(identityOf(full));
  expect(identityOf(other)).not.toBe(identityOf(full));
  expect(identityOf(full, other)).not.toBe(identityOf(other, full));
  copyFileSync(full, copy);
  // It was changed, for all that is known.
  expect(identityOf(copy)).not.toBe(identityOf(full));
});

test("what is no file is not waited for: whoever opens the guest says so", async () => {
  await using directory = new TemporaryDirectory("identity");
  const pipe = directory.file("pipe");
  expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
  expect(guestIdentity({ kind: "firecracker", files: [pipe] })).toMatch(IDENTITY_TEXT);
  expect(() => sampleOf(pipe)).toThrow(`${pipe} is not a file`);
});
