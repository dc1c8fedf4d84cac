/** What is owed to the destination after the switchover, by host pages. */
import type { PageBitmap } from "../ram/bitmap.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import type { ByteRange } from "../stream/command.ts";
import type { SourceContext } from "./context.ts";
import { hostPages, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** Host pages of all blocks. */
function allHostPages(blocks: readonly RamBlock[]): number {
  return blocks.reduce((sum, block) => sum + hostPages(block), 0);
}

/** Bytes of each RAM block that became owed, in the order of the blocks. */
export type NewlyOwed = readonly (readonly ByteRange[])[];

/**
 * Owes all of a guest of which nothing has been sent. Nothing is counted: a guest of many GiB has
 * millions of pages, and waits for this. Done at once where it is owed already.
 */
export function oweEverything(shared: SourceShared, blocks: readonly RamBlock[]): NewlyOwed {
  if (!owesEverything(shared, blocks)) {
    for (const bitmap of shared.owed) bitmap.setAll();
    Atomics.store(shared.control, WORD.owed, allHostPages(blocks));
  }
  return blocks.map(({ length }) => [{ start: 0, length }]);
}

/** Whether every page of the guest is owed. */
export function owesEverything({ control }: SourceShared, blocks: readonly RamBlock[]): boolean {
  return Atomics.load(control, WORD.owed) === allHostPages(blocks);
}

/**
 * Turns what is dirty into what is owed, by host pages: if any of its target pages is dirty a host
 * page is discarded and sent as a whole. What is owed already stays so, and is not named again.
 */
export function oweDirty({ guest, shared }: SourceContext): NewlyOwed {
  return guest.blocks.map((block) => {
    const [dirty, owed] = [shared.dirty[block.index], shared.owed[block.index]];
    if (dirty === undefined || owed === undefined) throw new Error("no bitmaps");
    const ranges: ByteRange[] = [];
    const perHostPage = targetPagesPerHostPage(block);
    const pages = dirty.pages;
    for (let first = dirty.nextSet(0); first >= 0;) {
      const end = dirty.nextClear(first);
      dirty.clearRange(first, end - first);
      const hostEnd = Math.ceil(end / perHostPage);
      Atomics.add(
        shared.control,
        WORD.owed,
        oweRange(block, owed, Math.floor(first / perHostPage), hostEnd, ranges),
      );
      first = end < pages ? dirty.nextSet(end) : -1;
    }
    return ranges;
  });
}

/** Owes host pages [first, end); adds those that were not yet to `ranges`, and returns their number. */
function oweRange(
  block: RamBlock,
  owed: PageBitmap,
  first: number,
  end: number,
  ranges: ByteRange[],
): number {
  let count = 0;
  for (let from = owed.nextClear(first, end); from < end; from = owed.nextClear(from, end)) {
    const next = owed.nextSet(from, end);
    const to = next < 0 ? end : next;
    owed.setRange(from, to - from);
    const start = from * block.pageSize;
    ranges.push({ start, length: Math.min(block.length, to * block.pageSize) - start });
    count += to - from;
    from = to;
  }
  return count;
}

/** Owes a page where nothing is: there must be a discard before LISTEN (docs/wire.md). */
export function oweSomething({ guest, shared }: SourceContext): NewlyOwed {
  const [first] = guest.blocks;
  if (first === undefined || Atomics.load(shared.control, WORD.owed) > 0) return [];
  const last = hostPages(first) - 1;
  shared.owed[0]?.set(last);
  Atomics.store(shared.control, WORD.owed, 1);
  const start = last * first.pageSize;
  return [[{ start, length: first.length - start }]];
}

/** Target pages in what is owed. */
export function countOwedPages(context: SourceContext): number {
  const { guest, shared } = context;
  if (owesEverything(shared, guest.blocks)) {
    return guest.blocks.reduce((sum, block) => {
      return sum + hostPages(block) * targetPagesPerHostPage(block);
    }, 0);
  }
  return guest.blocks.reduce((sum, block) => {
    return sum + (shared.owed[block.index]?.count() ?? 0) * targetPagesPerHostPage(block);
  }, 0);
}

/**
 * Owes a block what the destination has not: `received` has one bit a target page. A host page of
 * which a part is missing is owed as a whole, as it can only be placed so.
 */
export function oweMissing(block: RamBlock, received: PageBitmap, owed: PageBitmap): void {
  const perHostPage = targetPagesPerHostPage(block);
  owed.clearRange(0, owed.pages);
  for (let first = received.nextClear(0); first < received.pages;) {
    const next = received.nextSet(first);
    const end = next < 0 ? received.pages : next;
    const hostPage = Math.floor(first / perHostPage);
    owed.setRange(hostPage, Math.ceil(end / perHostPage) - hostPage);
    first = received.nextClear(end);
  }
}
