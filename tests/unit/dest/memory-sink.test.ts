import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { discardPages, mapAnonymous, scratchAt } from "../../../syscalls/memory.ts";
import { MemorySink } from "../../../src/dest/memory-sink.ts";
import { attachPageState, createPageState } from "../../../src/dest/shared.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { MemoryWindows } from "../../../src/ram/windows.ts";

const PAGE = 4096;

/** Guest memory, its page state, and a sink over a buffer whose page i is full of i + 1. */
function bench(pageCounts: readonly number[]) {
  const mappings = pageCounts.map((count) => mapAnonymous(count * PAGE));
  const blocks: RamBlock[] = mappings.map(({ address, length }, index) => {
    return { index, name: `block${index}`, address, length, pageSize: PAGE };
  });
  const pages = attachPageState(createPageState(blocks), blocks);
  const windows = blocks.map(({ address, length }) => new MemoryWindows(address, length));
  const buffer = new Uint8Array(16 * PAGE).map((_, i) => Math.floor(i / PAGE) + 1);
  const sink = new MemorySink(windows, pages, buffer);
  const byte = (block: number, page: number): number => {
    return scratchAt((blocks[block]?.address ?? 0) + page * PAGE + 123, 1).bytes[0] ?? -1;
  };
  return { mappings, blocks, pages, sink, byte };
}

/** Pages of a mapping that are in memory, in KiB, as the kernel counts them. */
function residentKibibytes(address: number): number {
  const entries = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const entry = entries.find((text) => {
    const [, start = "", end = ""] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(text) ?? [];
    return address >= Number.parseInt(start, 16) && address < Number.parseInt(end, 16);
  });
  return Number(/^Rss:\s+(\d+) kB/m.exec(entry ?? "")?.[1]);
}

describe("precopy", () => {
  test("writes pages where they belong, as often as they come", () => {
    const { blocks, pages, sink, byte } = bench([20, 8]);
    sink.pages(blocks[1]!, 2 * PAGE, 3 * PAGE, 4);
    expect([1, 2, 3, 5, 6].map((page) => byte(1, page))).toEqual([0, 4, 5, 7, 0]);
    sink.pages(blocks[1]!, 3 * PAGE, 0, 1);
    sink.zeros(blocks[1]!, 4 * PAGE, 1);
    expect([2, 3, 4, 5].map((page) => byte(1, page))).toEqual([4, 1, 0, 7]);
    expect(pages.received[1]?.count()).toBe(4);
    expect(pages.received[0]?.count()).toBe(0);
  });

  test("does not touch pages that come as zeros before anything else", () => {
    const { blocks, pages, sink, byte } = bench([4096]);
    const before = residentKibibytes(blocks[0]!.address);
    sink.zeros(blocks[0]!, 0, 4096);
    sink.zeros(blocks[0]!, 100 * PAGE, 50);
    expect(residentKibibytes(blocks[0]!.address) - before).toBeLessThan(1024);
    expect([pages.received[0]?.count(), pages.unpopulated[0]?.count()]).toEqual([4096, 4096]);
    expect(byte(0, 120)).toBe(0);
  });

  test("gives a page as it is now, for XBZRLE to be decoded over", () => {
    const { blocks, sink } = bench([4]);
    sink.pages(blocks[0]!, 0, 5 * PAGE, 2);
    const page = new Uint8Array(PAGE);
    sink.readPage(blocks[0]!, PAGE, page);
    expect(page).toEqual(new Uint8Array(PAGE).fill(7));
    sink.readPage(blocks[0]!, 3 * PAGE, page);
    expect(page).toEqual(new Uint8Array(PAGE));
  });

  test("holds what a model says, and knows which pages were never populated", () => {
    const step = fc.record({
      kind: fc.constantFrom("pages", "zeros", "discard"),
      page: fc.nat({ max: 39 }),
      count: fc.integer({ min: 1, max: 8 }),
      at: fc.nat({ max: 8 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const { mappings, blocks, pages, sink, byte } = bench([40]);
        const block = blocks[0]!;
        const model = new Map<number, { byte: number; touched: boolean }>();
        for (const { kind, page, count: wanted, at } of steps) {
          const count = Math.min(wanted, 40 - page);
          if (kind === "pages") sink.pages(block, page * PAGE, at * PAGE, count);
          else if (kind === "zeros") sink.zeros(block, page * PAGE, count);
          else {
            // As OwedPages.discard does it.
            discardPages(block.address + page * PAGE, count * PAGE);
            pages.received[0]?.clearRange(page, count);
            pages.unpopulated[0]?.clearRange(page, count);
          }
          for (let i = 0; i < count; i++) {
            const touched = model.get(page + i)?.touched ?? false;
            if (kind === "discard") model.delete(page + i);
            else if (kind === "zeros") model.set(page + i, { byte: 0, touched });
            else model.set(page + i, { byte: at + i + 1, touched: true });
          }
        }
        for (let page = 0; page < 40; page++) {
          const expected = model.get(page);
          expect(byte(0, page)).toBe(expected?.byte ?? 0);
          expect(pages.received[0]?.test(page)).toBe(expected !== undefined);
          expect(pages.unpopulated[0]?.test(page)).toBe(expected?.touched === false);
        }
        for (const mapping of mappings) mapping[Symbol.dispose]();
      }),
      { numRuns: 100 },
    );
  });
});
