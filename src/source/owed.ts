/** What is owed to the destination after the switchover, by host pages. */
import type { PageBitmap } from "../ram/bitmap.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import type { SourceContext } from "./context.ts";
import { hostPages, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** Host pages of all blocks. */
function allHostPages(blocks: readonly RamBlock[]): number {
  return blocks.reduce((sum, block) => sum + hostPages(block), 0);
}

/**
 * Owes all of a guest of which nothing has been sent. Nothing is counted: a guest of many GiB has
 * millions of pages, and waits for this. Done at once where it is owed already.
 */
export function oweEverything(shared: SourceShared, blocks: readonly RamBlock[]): void {
  if (owesEverything(shared, blocks)) return;
  for (const bitmap of shared.owed) bitmap.setAll();
  Atomics.store(shared.control, WORD.owed, allHostPages(blocks));
}

/** Whether every page of the guest is owed. */
export function owesEverything({ control }: SourceShared, blocks: readonly RamBlock[]): boolean {
  return Atomics.load(control, WORD.owed) === allHostPages(blocks);
}

/**
 * Turns the dirty bitmap into what is owed, by host pages: if any of its target pages is dirty a
 * host page is discarded and sent as a whole. At least one page is owed, as there must be a discard.
 */
export function computeOwed(context: SourceContext): void {
  const { guest, shared } = context;
  let owed = 0;
  for (const block of guest.blocks) {
    const perHostPage = targetPagesPerHostPage(block);
    const bitmap = shared.owed[block.index];
    shared.dirty[block.index]?.forEachRange((first, count) => {
      const start = Math.floor(first / perHostPage);
      const end = Math.ceil((first + count) / perHostPage);
      bitmap?.setRange(start, end - start);
    });
    owed += bitmap?.count() ?? 0;
  }
  const [first] = guest.blocks;
  if (owed === 0 && first !== undefined) {
    shared.owed[0]?.set(hostPages(first) - 1);
    owed = 1;
  }
  Atomics.store(shared.control, WORD.owed, owed);
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
