/**
 * The host pages of a guest that lies in files. It has none of its own; what is owed, asked for and
 * sent as one follows those of the memory that is filled, which a destination tells by the features
 * that it answers with (FEATURE.smallPages and largePages of stream/hello.ts).
 */
import { PageBitmap } from "../ram/bitmap.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { FEATURE, hostPageBytes, hostPageBytesOf } from "../stream/hello.ts";
import type { SourceContext } from "./context.ts";
import { hostPages, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** What of `features` can be chosen for a guest: the memory of one that runs here has its own pages. */
export function hostPageChoice({ guest }: SourceContext, features: number): number {
  return guest.live ? features & ~(FEATURE.smallPages | FEATURE.largePages) : features;
}

/**
 * The guest has pages as `features` say from here on. Requests may be answered meanwhile: of each page
 * as it will be either all is owed or nothing is.
 */
export function chooseHostPages(context: SourceContext, features: number): void {
  const bytes = hostPageBytes(features);
  const { guest, shared } = context;
  if (bytes === undefined || Atomics.load(shared.control, WORD.hostPageBytes) === bytes) return;
  shared.mainLock.lock();
  try {
    const old = guest.blocks.map((block) => targetPagesPerHostPage(block));
    const before = { owed: [...shared.owed], awaited: [...shared.awaited] };
    Atomics.store(shared.control, WORD.hostPageBytes, bytes);
    followHostPages(shared, guest.blocks);
    for (const which of ["owed", "awaited"] as const) {
      let count = 0;
      for (const block of guest.blocks) {
        const [from, to] = [before[which][block.index], shared[which][block.index]];
        if (from === undefined || to === undefined) throw new Error("no bitmaps");
        regroup(from, old[block.index] ?? 1, to, targetPagesPerHostPage(block));
        count += to.count();
      }
      Atomics.store(shared.control, WORD[which], count);
    }
  } finally {
    shared.mainLock.unlock();
  }
}

/** Sets the bits of `to` whose pages have a part among those of `from`: two views of one memory. */
function regroup(from: PageBitmap, perFrom: number, to: PageBitmap, perTo: number): void {
  const ranges: [first: number, end: number][] = [];
  from.forEachRange((first, count) => ranges.push([first * perFrom, (first + count) * perFrom]));
  from.clearRange(0, from.pages);
  for (const [first, end] of ranges) {
    const start = Math.floor(first / perTo);
    to.setRange(start, Math.min(to.pages, Math.ceil(end / perTo)) - start);
  }
}

/** Sees the guest's blocks as was chosen, by whichever thread; one that serves does so under its lock. */
export function followHostPages(shared: SourceShared, blocks: readonly RamBlock[]): void {
  const bytes = Atomics.load(shared.control, WORD.hostPageBytes);
  if (bytes === 0) return;
  for (const block of blocks) {
    const pageSize = hostPageBytesOf(block, bytes);
    if (pageSize === block.pageSize) continue;
    block.pageSize = pageSize;
    for (const bitmaps of [shared.owed, shared.awaited]) {
      bitmaps[block.index] = new PageBitmap(hostPages(block), bitmaps[block.index]?.shared);
    }
  }
}
