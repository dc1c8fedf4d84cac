/**
 * Which pages are still to come when postcopy begins. The source owes what it discarded and has not
 * sent since. What it neither sent nor discarded it owes to nobody: the guest has no such page
 * (memory of virtio-mem that is not plugged in) or does not care (free page hints), so it is zeros
 * by definition, and the source would refuse to be asked for it.
 */
import type { PageBitmap } from "../ram/bitmap.ts";
import type { PageState } from "./shared.ts";

/**
 * Marks every page that was neither received nor discarded as received and never touched. Returns
 * the number of target pages that are missing. `discarded` has one bit a target page, by block.
 */
export function settleMissing(pages: PageState, discarded: readonly PageBitmap[]): number {
  return discarded.reduce((sum, bitmap, index) => {
    const received = pages.received[index];
    const unpopulated = pages.unpopulated[index];
    if (received === undefined || unpopulated === undefined) throw new Error("no page state");
    return sum + settleBlock(received, unpopulated, bitmap);
  }, 0);
}

function settleBlock(received: PageBitmap, unpopulated: PageBitmap, discarded: PageBitmap): number {
  const { pages } = received;
  let missing = 0;
  for (let first = received.nextClear(0); first < pages; first = received.nextClear(first)) {
    const next = received.nextSet(first);
    let end = next < 0 ? pages : next;
    if (discarded.test(first)) {
      end = discarded.nextClear(first, end);
      missing += end - first;
    } else {
      const owed = discarded.nextSet(first, end);
      if (owed >= 0) end = owed;
      received.setRange(first, end - first);
      unpopulated.setRange(first, end - first);
    }
    first = end;
  }
  return missing;
}
