/** Many ranges are discarded at once, each of them whole and nothing beside them. */
import { expect, test } from "bun:test";
import { DiscardList } from "../../../syscalls/discard-list.ts";
import { IOVEC_COUNT_MAX } from "../../../syscalls/io.ts";
import { BASE_PAGE_BYTES, mapAnonymous, viewMemory } from "../../../syscalls/memory.ts";

/** More ranges than one call takes. */
const PAGES = 4 * IOVEC_COUNT_MAX;

function filledPages(): { address: number; words: Uint32Array; unmap: () => void } {
  const mapping = mapAnonymous(PAGES * BASE_PAGE_BYTES);
  const words = new Uint32Array(viewMemory(mapping.address, mapping.length));
  for (let page = 0; page < PAGES; page++) words[(page * BASE_PAGE_BYTES) / 4] = page + 1;
  return { address: mapping.address, words, unmap: () => mapping[Symbol.dispose]() };
}

/** Pages that read as zeros. */
function zeroPages(words: Uint32Array): number[] {
  const zeros: number[] = [];
  for (let page = 0; page < PAGES; page++) {
    if (words[(page * BASE_PAGE_BYTES) / 4] === 0) zeros.push(page);
  }
  return zeros;
}

for (const way of ["at once", "range by range"] as const) {
  test(`every second page, ${way}`, () => {
    const { address, words, unmap } = filledPages();
    const list = new DiscardList(way === "at once");
    const odd = Array.from({ length: PAGES / 2 }, (_, i) => 2 * i + 1);
    for (const page of odd) list.add(address + page * BASE_PAGE_BYTES, BASE_PAGE_BYTES);
    list.flush();
    expect(zeroPages(words)).toEqual(odd);
    unmap();
  });
}

test("ranges of many pages, and nothing before the flush", () => {
  const { address, words, unmap } = filledPages();
  const list = new DiscardList();
  list.add(address + 10 * BASE_PAGE_BYTES, 3 * BASE_PAGE_BYTES);
  list.add(address + 20 * BASE_PAGE_BYTES, BASE_PAGE_BYTES);
  expect(zeroPages(words)).toEqual([]);
  list.flush();
  expect(zeroPages(words)).toEqual([10, 11, 12, 20]);
  list.flush();
  unmap();
});

test("memory that is not there is an error that says so", () => {
  const { address, unmap } = filledPages();
  unmap();
  const list = new DiscardList();
  list.add(address, BASE_PAGE_BYTES);
  expect(() => list.flush()).toThrow(/madvise\(.*ENOMEM/);
});
