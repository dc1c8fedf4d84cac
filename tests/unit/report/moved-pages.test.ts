import { expect, test } from "bun:test";
import fc from "fast-check";
import type { RamBlock } from "../../../src/ram/block.ts";
import {
  createMovedPages,
  KIND,
  MOVED_BINS,
  MovedPages,
  MovedRuns,
  pagesPerBin,
} from "../../../src/report/moved-pages.ts";

const PAGE = 4096;

function blocksOf(...pages: number[]): RamBlock[] {
  return pages.map((count, index) => {
    return { index, name: `ram${index}`, length: count * PAGE, pageSize: PAGE, address: 0 };
  });
}

function counts(shared: SharedArrayBuffer, kind: number): number[] {
  return [...new Uint32Array(shared).subarray(kind * MOVED_BINS, (kind + 1) * MOVED_BINS)];
}

test("runs are divided at the edges of bins, over all blocks", () => {
  const blocks = blocksOf(1000, 24);
  const shared = createMovedPages();
  const moved = new MovedPages(shared, blocks);
  expect(pagesPerBin(1024)).toBe(2);
  const [first, second] = blocks;
  if (first === undefined || second === undefined) throw new Error("no blocks");
  moved.add(KIND.push, first, 3 * PAGE, 4);
  moved.add(KIND.request, second, 23 * PAGE, 1);
  expect(counts(shared, KIND.push).slice(0, 5)).toEqual([0, 1, 2, 1, 0]);
  expect(counts(shared, KIND.request)[511]).toBe(1);
  expect(counts(shared, KIND.precopy).every((count) => count === 0)).toBe(true);
});

test("pages that come one by one, or a few at a time, are counted as the runs that they make, every one once", () => {
  const blocks = blocksOf(700, 900);
  const page = fc.record({
    kind: fc.constantFrom(...Object.values(KIND)),
    block: fc.constantFrom(...blocks),
    first: fc.nat(699),
    run: fc.integer({ min: 1, max: 40 }),
    step: fc.integer({ min: 1, max: 9 }),
  });
  fc.assert(
    fc.property(fc.array(page, { maxLength: 30 }), (list) => {
      const [one, joined] = [createMovedPages(), createMovedPages()];
      const moved = new MovedPages(one, blocks);
      const runs = new MovedRuns(new MovedPages(joined, blocks));
      for (const { kind, block, first, run, step } of list) {
        const end = Math.min(first + run, block.length / PAGE);
        for (let at = first; at < end;) {
          const pages = Math.min(step, end - at);
          runs.add(kind, block, at * PAGE, pages);
          for (let single = at; single < at + pages; single++)
            moved.add(kind, block, single * PAGE, 1);
          at += pages;
        }
      }
      runs.flush();
      runs.flush();
      expect([...new Uint32Array(joined)]).toEqual([...new Uint32Array(one)]);
    }),
  );
});
