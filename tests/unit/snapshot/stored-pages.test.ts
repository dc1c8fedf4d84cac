import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { closeSync, mkdirSync, openSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import { mapScratch } from "../../../syscalls/memory.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import type { OpenedSnapshot } from "../../../src/guests/snapshot/open.ts";
import { SnapshotTable } from "../../../src/guests/snapshot/page-table.ts";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const PAGES = 150;
const BLOCKS = 2;

/** What a page holds all over; every fifth one is zeros. */
function byteOf(index: number, page: number): number {
  return page % 5 === 4 ? 0 : 1 + ((page + 100 * index) % 250);
}

let directory: TemporaryDirectory;

beforeAll(() => {
  directory = new TemporaryDirectory("stored");
});

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

function keep(name: string): OpenedSnapshot {
  const path = directory.file(name);
  mkdirSync(path);
  const setup = Array.from({ length: BLOCKS }, (_, index) => {
    return { name: `block${index}`, length: PAGES * PAGE, pageSize: PAGE };
  });
  const kept = new KeptGuest(path, setup);
  for (let index = 0; index < BLOCKS; index++) {
    for (let page = 0; page < PAGES; page++) {
      const byte = byteOf(index, page);
      if (byte !== 0) kept.store(kept.postcopy, index, page, filledPage(byte));
    }
  }
  kept.finish();
  return openSnapshot(path);
}

function block(snapshot: OpenedSnapshot, index = 0): RamBlock {
  const found = snapshot.blocks[index];
  if (found === undefined) throw new RangeError(`there is no block ${index}`);
  return found;
}

test("any order of pages brings each as it was stored", () => {
  const snapshot = keep("orders");
  const order = fc.array(
    fc.record({
      index: fc.nat({ max: BLOCKS - 1 }),
      page: fc.nat({ max: PAGES - 1 }),
      // Runs in order, which are read ahead.
      run: fc.nat({ max: 70 }),
    }),
    { maxLength: 12 },
  );
  const target = new Uint8Array(3 * PAGE);
  fc.assert(
    fc.property(order, (wishes) => {
      const pages = new StoredPages(new SnapshotTable(snapshot));
      for (const { index, page: first, run } of wishes) {
        for (let page = first; page < Math.min(PAGES, first + run); page++) {
          const of = block(snapshot, index);
          expect(pages.isZero(of, page * PAGE)).toBe(byteOf(index, page) === 0);
          target.fill(0xff);
          pages.copyPage(of, page * PAGE, target, PAGE);
          const expected = new Uint8Array(3 * PAGE).fill(0xff);
          expected.fill(byteOf(index, page), PAGE, 2 * PAGE);
          expect(Buffer.compare(target, expected)).toBe(0);
        }
      }
    }),
    { numRuns: 40 },
  );
});

test("many pages at once come as one by one, wherever they are to go", () => {
  const snapshot = keep("many");
  const wish = fc.record({
    index: fc.nat({ max: BLOCKS - 1 }),
    page: fc.nat({ max: PAGES - 1 }),
    count: fc.integer({ min: 1, max: 40 }),
    gap: fc.constantFrom(0, 8),
  });
  const target = mapScratch(41 * (PAGE + 8));
  fc.assert(
    fc.property(fc.array(wish, { maxLength: 8 }), (wishes) => {
      const pages = new StoredPages(new SnapshotTable(snapshot));
      for (const { index, page: first, count: most, gap } of wishes) {
        const count = Math.min(most, PAGES - first);
        const stride = PAGE + gap;
        target.bytes.fill(0xff);
        pages.copyPages(block(snapshot, index), first * PAGE, count, target, 5, stride);
        const expected = new Uint8Array(target.bytes.length).fill(0xff);
        for (let n = 0; n < count; n++) {
          const at = 5 + n * stride;
          expected.fill(byteOf(index, first + n), at, at + PAGE);
        }
        expect(Buffer.compare(target.bytes, expected)).toBe(0);
      }
    }),
    { numRuns: 40 },
  );
});

test("of many pages at once each is compared with its checksum", () => {
  const snapshot = keep("damaged");
  const file = openSync(join(snapshot.directory, "ram-0.bin"), "r+");
  writeSync(file, Uint8Array.of(99), 0, 1, 12 * PAGE + 77);
  closeSync(file);
  const pages = new StoredPages(new SnapshotTable(snapshot));
  const target = mapScratch(8 * PAGE);
  const read = (first: number): void => {
    pages.copyPages(block(snapshot), first * PAGE, 4, target, 0, PAGE);
  };
  read(5);
  expect(() => read(10)).toThrow(
    `the page at ${12 * PAGE} of ram-0.bin (block0) does not have its checksum`,
  );
});

/** Reads pages in order, so many at once, until one is refused; in which piece, and why. */
function readUntilRefused(snapshot: OpenedSnapshot, atOnce = 1): { page: number; error: Error } {
  const pages = new StoredPages(new SnapshotTable(snapshot));
  const target = mapScratch(atOnce * PAGE);
  for (let page = 0; page < PAGES; page += atOnce) {
    if (pages.isZero(block(snapshot), page * PAGE)) continue;
    try {
      if (atOnce === 1) pages.copyPage(block(snapshot), page * PAGE, target.bytes, 0);
      else pages.copyPages(block(snapshot), page * PAGE, atOnce, target, 0, PAGE);
    } catch (error) {
      return { page, error: error as Error };
    }
  }
  throw new Error("no page was refused");
}

describe.each([1, 2, 6])("a file that changes while it is served, %d pages at once,", (atOnce) => {
  test("is cut off: every page before the cut comes, the next one is named", () => {
    const snapshot = keep(`cut-${atOnce}`);
    // In the middle of a page, and of what is read ahead.
    truncateSync(join(snapshot.directory, "ram-0.bin"), 100 * PAGE + 1000);
    const { page, error } = readUntilRefused(snapshot, atOnce);
    expect(page).toBe(100 - (100 % atOnce));
    expect(error).toMatchObject({ code: "DAMAGED_SNAPSHOT" });
    expect(error.message).toEndWith(`the page at ${100 * PAGE} of ram-0.bin (block0) is cut off`);
  });

  test("cannot be read: the page, the file and the disk's error are named", () => {
    const snapshot = keep(`unreadable-${atOnce}`);
    // Memory of this process where none is mapped: reading it is EIO, as on a bad disk.
    const fd = openSync("/proc/self/mem", "r");
    try {
      const { page, error } = readUntilRefused({ ...snapshot, descriptors: [fd] }, atOnce);
      expect(page).toBe(0);
      expect(error).toMatchObject({ code: "DAMAGED_SNAPSHOT", cause: { code: "EIO" } });
      expect(error.message).toContain("the page at 0 of ram-0.bin (block0) cannot be read");
      expect((error.cause as Error).message).toContain(`${snapshot.directory}/ram-0.bin`);
    } finally {
      closeSync(fd);
    }
  });
});
