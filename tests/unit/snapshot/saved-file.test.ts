/** A saved file that is not, or does not stay, what it was; and its index. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import { buildIndex, INDEX_PROGRESS_WORDS } from "../../../src/guests/stream/build.ts";
import type { BuiltIndex } from "../../../src/guests/stream/build.ts";
import { indexPath, publishDraft } from "../../../src/guests/stream/draft.ts";
import { identityOf } from "../../../src/guests/stored/identity.ts";
import { openIndexed, recogniseFile } from "../../../src/guests/stream/open.ts";
import type { RecognisedFile } from "../../../src/guests/stream/open.ts";
import type { OpenedStream } from "../../../src/guests/stream/opened.ts";
import { StreamTable } from "../../../src/guests/stream/page-table.ts";
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
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;

let place: TemporaryDirectory;
beforeAll(() => {
  place = new TemporaryDirectory("saved");
});
afterAll(() => place[Symbol.asyncDispose]());

/** A saved stream whose pages all have data: page n is n + 1 all over. */
function saved(name: string): string {
  const path = place.file(name);
  const pages = Array.from({ length: HAND_MADE_PAGES }, (_, n) => page(n * PAGE, n + 1));
  writeFileSync(
    path,
    bytesOf(opening("pc"), ramStart(), ramEnd(...pages), unknownDevice(1, "cpu"), eof),
  );
  return path;
}

function build(file: RecognisedFile): BuiltIndex {
  const { path, identity, opening: sum } = file;
  const progress = new SharedArrayBuffer(8 * INDEX_PROGRESS_WORDS);
  return buildIndex({ path, identity, opening: sum, bodyAt: 0, unpackedFd: -1, progress });
}

/** Indexes a file, and keeps the index beside it. */
function index(path: string): OpenedStream {
  const { stream, draft } = build(recogniseFile(path));
  if (draft === undefined) throw new Error("no index was made");
  expect(publishDraft(draft, path)).toBe(true);
  return stream;
}

/** The first byte of a page, as it is served. */
function firstByte(stream: OpenedStream, n: number): number {
  const target = new Uint8Array(PAGE);
  const [block] = stream.blocks;
  if (block === undefined) throw new Error("no block");
  new StoredPages(new StreamTable(stream)).copyPage(block, n * PAGE, target, 0);
  return target[0] ?? -1;
}

describe("a saved file", () => {
  test("that grows while it is indexed: no index is made of it", () => {
    const path = saved("grows");
    const file = recogniseFile(path);
    appendFileSync(path, "more");
    expect(() => build(file)).toThrow(/grows changed from \d+ to \d+ bytes while it was read/);
  });

  test("that shrinks while it is indexed: the same", () => {
    const path = saved("shrinks");
    const file = recogniseFile(path);
    truncateSync(path, 3 * PAGE);
    expect(() => build(file)).toThrow(/shrinks changed from \d+ to 12288 bytes while it was read/);
  });

  test("that another one takes the place of: what was opened is served on", () => {
    const path = saved("replaced");
    const stream = index(path);
    const other = place.file("other");
    writeFileSync(other, Buffer.alloc(statSync(path).size));
    renameSync(other, path);
    expect(firstByte(stream, 5)).toBe(6);
    expect(openIndexed(recogniseFile(path))).toBe("is of another file, or of an earlier state");
  });

  test("that is overwritten: its pages are damaged, and the index is not used again", () => {
    const path = saved("overwritten");
    const stream = index(path);
    writeFileSync(path, Buffer.alloc(statSync(path).size));
    expect(() => firstByte(stream, 5)).toThrow("does not have its checksum");
  });

  test("without checksums (mapped-ram) that is overwritten: it is no more the one opened", () => {
    const path = saved("mapped");
    const { identity, ...stream } = index(path);
    const mapped = { ...stream, identity, sums: undefined };
    expect(firstByte(mapped, 5)).toBe(6);
    writeFileSync(path, Buffer.alloc(statSync(path).size));
    utimesSync(path, 1, 1);
    expect(identityOf(statSync(path, { bigint: true }))).not.toEqual(identity);
    expect(() => firstByte(mapped, 5)).toThrow("has changed since it was opened");
  });
});

describe("an index", () => {
  const WAYS: [what: string, change: (bytes: Buffer) => Buffer, says: string][] = [
    ["cut off", (bytes) => bytes.subarray(0, -1), "is cut off, or of another version"],
    ["empty", () => Buffer.alloc(0), "is cut off"],
    ["damaged in its tables", (bytes) => flipped(bytes, 40), "is damaged"],
    ["damaged in its JSON", (bytes) => flipped(bytes, bytes.length - 100), "is damaged"],
    ["damaged at its end", (bytes) => flipped(bytes, bytes.length - 1), "is damaged"],
  ];

  test.each(WAYS)("that is %s is not used", (what, change, says) => {
    const path = saved(what);
    index(path);
    expect(openIndexed(recogniseFile(path))).toBeObject();
    writeFileSync(indexPath(path), change(readFileSync(indexPath(path))));
    expect(openIndexed(recogniseFile(path))).toBe(says);
  });
});

function flipped(bytes: Buffer, at: number): Buffer {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}
