/** Which guest in files it is: the same wherever they lie, and never that of others of the same size. */
import { expect, test } from "bun:test";
import { copyFileSync, utimesSync, writeFileSync } from "node:fs";
import { filesIdentity } from "../../../src/commands/guest-identity.ts";
import { openStoredGuest } from "../../../src/commands/stored-guest.ts";
import { sampleOf } from "../../../src/guests/stored/file-sample.ts";
import { noEvents } from "../../../src/report/sink.ts";
import { IDENTITY_TEXT } from "../../../src/stream/identity.ts";
import {
  bytesOf,
  eof,
  HAND_MADE_PAGES,
  opening,
  page,
  ramEnd,
  ramStart,
  unknownDevice,
} from "../../helpers/hand-made-stream.ts";
import { memoryOf, PAGE_BYTES, writeMemoryFile } from "../../helpers/memory-files.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGES = 640;

const SILENT = {
  page: false,
  events: noEvents,
  warn: () => undefined,
  startProgress: () => ({ stop: () => undefined }),
  finish: () => undefined,
};

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
  const identityOf = (...files: string[]) => filesIdentity({ kind: "firecracker", files });
  expect(identityOf(full)).toMatch(IDENTITY_TEXT);
  expect(identityOf(copy)).toBe(identityOf(full));
  expect(identityOf(other)).not.toBe(identityOf(full));
  expect(identityOf(full, other)).not.toBe(identityOf(other, full));
  copyFileSync(full, copy);
  // It was changed, for all that is known.
  expect(identityOf(copy)).not.toBe(identityOf(full));
});

/** A saved stream whose page n is n all over, but for those of `other`. */
function savedStream(
  other: Readonly<Record<number, number>>,
  device: number,
): Uint8Array<ArrayBuffer> {
  const pages = Array.from({ length: HAND_MADE_PAGES }, (_, n) =>
    page(n * PAGE_BYTES, other[n] ?? n),
  );
  const sections = [ramStart(), ramEnd(...pages), unknownDevice(1, "cpu", device)];
  return bytesOf(opening("pc"), ...sections, eof);
}

test("a saved stream is known by its pages and its devices, when and however it was saved", async () => {
  await using directory = new TemporaryDirectory("identity");
  const saved = async (name: string, bytes: Uint8Array): Promise<string> => {
    const file = directory.file(name);
    writeFileSync(file, bytes);
    utimesSync(file, 1, name.length);
    const options = { noRecord: true, noReplay: true, replayLimit: undefined };
    return (await openStoredGuest({ kind: "stream", file }, options, SILENT)).identity;
  };
  const first = await saved("a", savedStream({}, 1));
  expect(first).toMatch(IDENTITY_TEXT);
  expect(await saved("copied", savedStream({}, 1))).toBe(first);
  expect(await saved("compressed", Bun.gzipSync(savedStream({}, 1)))).toBe(first);
  // Also by who finds the index.
  expect(await saved("a", savedStream({}, 1))).toBe(first);
  const others = [
    await saved("page", savedStream({ [HAND_MADE_PAGES - 1]: 99 }, 1)),
    await saved("swapped", savedStream({ 3: 4, 4: 3 }, 1)),
    await saved("device", savedStream({}, 2)),
  ];
  expect(new Set([first, ...others]).size).toBe(4);
});

test("what is no file is not waited for: whoever opens the guest says so", async () => {
  await using directory = new TemporaryDirectory("identity");
  const pipe = directory.file("pipe");
  expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
  expect(filesIdentity({ kind: "firecracker", files: [pipe] })).toMatch(IDENTITY_TEXT);
  expect(() => sampleOf(pipe)).toThrow(`${pipe} is not a file`);
});
