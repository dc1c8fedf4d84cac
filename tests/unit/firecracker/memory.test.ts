/** A guest in Firecracker's memory files: pages of the last file that has them, and what is no guest. */
import { expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { openMemory } from "../../../src/guests/firecracker/open.ts";
import type { OpenedMemory } from "../../../src/guests/firecracker/open.ts";
import { MemoryTable } from "../../../src/guests/firecracker/page-table.ts";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const PAGES = 64;

/** A sparse file of `pages` pages, with a value in each byte of some. */
function sparse(path: string, contents: Record<number, number>, bytes = PAGES * PAGE): string {
  const fd = openSync(path, "w", 0o600);
  ftruncateSync(fd, bytes);
  for (const [page, value] of Object.entries(contents)) {
    writeSync(fd, Buffer.alloc(PAGE, value), 0, PAGE, Number(page) * PAGE);
  }
  closeSync(fd);
  return path;
}

function close({ layers }: OpenedMemory): void {
  for (const { descriptor } of layers) closeSync(descriptor);
}

/** The first byte of every page as it is served, checked to be that of all its bytes. */
function served(memory: OpenedMemory): number[] {
  const pages = new StoredPages(new MemoryTable(memory));
  const [block] = memory.blocks;
  if (block === undefined) throw new Error("no block");
  const page = new Uint8Array(PAGE);
  return Array.from({ length: block.length / PAGE }, (_, index) => {
    page.fill(0xee);
    pages.copyPage(block, index * PAGE, page, 0);
    const [value = 0] = page;
    expect(page.every((byte) => byte === value)).toBe(true);
    expect(pages.isZero(block, index * PAGE)).toBe(value === 0);
    return value;
  });
}

test("a full snapshot, and diffs over it: each page is that of the last file that has it", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), { 0: 1, 1: 1, 2: 1, 40: 1, 63: 1 });
  const first = sparse(directory.file("first"), { 1: 2, 2: 2, 41: 2 });
  const second = sparse(directory.file("second"), { 2: 3, 62: 3 });
  const expected = (contents: Record<number, number>) =>
    Array.from({ length: PAGES }, (_, page) => contents[page] ?? 0);

  const alone = openMemory([full]);
  expect(served(alone)).toEqual(expected({ 0: 1, 1: 1, 2: 1, 40: 1, 63: 1 }));
  close(alone);
  const both = openMemory([full, first, second]);
  expect(served(both)).toEqual(expected({ 0: 1, 1: 2, 2: 3, 40: 1, 41: 2, 62: 3, 63: 1 }));
  expect(both.blocks).toEqual([
    { index: 0, name: "memory", length: PAGES * PAGE, pageSize: PAGE, address: 0 },
  ]);
  close(both);
});

test("a file that is written to while it is served is damaged", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), { 5: 1 });
  const memory = openMemory([full]);
  sparse(full, { 5: 9 });
  expect(() => served(memory)).toThrow(/page at 20480 of .*full has changed since it was opened/);
  close(memory);
});

test("what is no memory, or not of one guest, is refused by name", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), {});
  const other = sparse(directory.file("other"), {}, 32 * PAGE);
  const odd = sparse(directory.file("odd"), {}, 4097);
  expect(() => openMemory([full, other])).toThrow(/other has 131072 bytes, and .*full has 262144/);
  expect(() => openMemory([odd])).toThrow(/odd has 4097 bytes, which are no whole pages/);
  expect(() => openMemory([directory.file("none")])).toThrow(/none cannot be opened/);
  expect(() => openMemory([directory.path])).toThrow(/cannot be opened/);
});
