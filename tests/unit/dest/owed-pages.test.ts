import { expect, test } from "bun:test";
import fc from "fast-check";
import { mapAnonymous, scratchAt } from "../../../syscalls/memory.ts";
import { MemorySink } from "../../../src/dest/memory-sink.ts";
import { OwedPages } from "../../../src/dest/owed-pages.ts";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  WORD,
} from "../../../src/dest/shared.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { MemoryWindows } from "../../../src/ram/windows.ts";

const PAGE = 4096;
const PAGES = 40;

/** A block of memory in this process, the pages that a source owes of it, and where they come to. */
class OwingBench implements Disposable {
  readonly shared = new DestShared(createDestShared());
  readonly owed: OwedPages;
  readonly block: RamBlock;
  readonly #mapping = mapAnonymous(PAGES * PAGE);
  readonly #sink: MemorySink;

  constructor() {
    const { address, length } = this.#mapping;
    this.block = { index: 0, name: "ram", address, length, pageSize: PAGE };
    const blocks = [this.block];
    const pageData = createPageState(blocks);
    const pages = attachPageState(pageData, blocks);
    const context = { guest: {}, shared: this.shared };
    this.owed = new OwedPages(context, { blocks, pages, pageData, foreign: undefined });
    const buffer = new Uint8Array(PAGES * PAGE).fill(1);
    this.#sink = new MemorySink([new MemoryWindows(address, length)], pages, buffer);
  }

  /** The source sends pages. */
  send(kind: "pages" | "zeros", page: number, count: number): void {
    // What was discarded before is given back before anything else comes.
    this.owed.giveBack();
    if (kind === "pages") this.#sink.pages(this.block, page * PAGE, 0, count);
    else this.#sink.zeros(this.block, page * PAGE, count);
    this.owed.arrived(this.#sink.fresh);
    this.#sink.fresh = 0;
  }

  discard(page: number, count: number): void {
    this.owed.discard(this.block, [{ start: page * PAGE, length: count * PAGE }]);
  }

  byte(page: number): number {
    return scratchAt(this.block.address + page * PAGE, 1).bytes[0] ?? -1;
  }

  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}

const step = fc.record({
  kind: fc.constantFrom("pages", "zeros", "discard"),
  page: fc.nat({ max: PAGES - 1 }),
  wanted: fc.integer({ min: 1, max: 12 }),
});

test("what is owed is what was discarded and not sent since, whenever counting begins", () => {
  const steps = fc.array(step, { maxLength: 30 });
  fc.assert(
    fc.property(steps, fc.nat({ max: 30 }), (all, countedFrom) => {
      using bench = new OwingBench();
      const owed = new Set<number>();
      for (const [index, { kind, page, wanted }] of all.entries()) {
        if (index === countedFrom) bench.owed.countAhead();
        const count = Math.min(wanted, PAGES - page);
        const touched = Array.from({ length: count }, (_, i) => page + i);
        if (kind === "discard") {
          bench.discard(page, count);
          for (const each of touched) owed.add(each);
        } else {
          bench.send(kind, page, count);
          for (const each of touched) owed.delete(each);
        }
      }
      bench.owed.giveBack();
      bench.owed.settle();
      expect(Atomics.load(bench.shared.control, WORD.missing)).toBe(owed.size);
      for (const page of owed) expect(bench.byte(page)).toBe(0);
    }),
    { numRuns: 200 },
  );
});

test("only whole pages of a block can be discarded", () => {
  using bench = new OwingBench();
  const { block, owed } = bench;
  for (const range of [
    { start: 1, length: PAGE },
    { start: 0, length: PAGE - 1 },
    { start: 0, length: (PAGES + 1) * PAGE },
  ]) {
    expect(() => owed.discard(block, [range])).toThrow(`The source discards ${range.length} bytes`);
  }
  owed.settle();
  expect(Atomics.load(bench.shared.control, WORD.missing)).toBe(0);
});
