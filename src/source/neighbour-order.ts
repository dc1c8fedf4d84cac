/** What lies around the pages of a recorded working set: it is pushed behind the set itself. */
import type { RamBlock } from "../ram/block.ts";
import { blockOfPage, hostPageOf } from "../ram/block.ts";
import type { PushOrder } from "./push-order.ts";
import { firstBlock } from "./push-order.ts";
import type { SourceShared } from "./shared.ts";

/**
 * Host pages on each side. Half of what a guest asks for beside what it asked for before lies next to
 * that, and nine in ten within so many: it came unasked the last time, or is the next to be touched.
 */
const NEIGHBOURS = 16;

/** The neighbours of a list of target pages, counted over all blocks, in the order of the list. */
export class NeighbourOrder implements PushOrder {
  block: RamBlock;
  hostPage = 0;
  /** Where the neighbours of the page of the list end that `find` stands at. */
  #end = 0;
  readonly #pages: Uint32Array;
  readonly #blocks: readonly RamBlock[];
  readonly #shared: SourceShared;
  #at = 0;

  /** @param pages each below the number of target pages of the guest. */
  constructor(pages: Uint32Array, blocks: readonly RamBlock[], shared: SourceShared) {
    this.#pages = pages;
    this.#blocks = blocks;
    this.#shared = shared;
    this.block = firstBlock(blocks);
  }

  find(): boolean {
    for (; this.#at < this.#pages.length; this.#at++) {
      const page = this.#pages[this.#at] ?? 0;
      const block = blockOfPage(this.#blocks, page);
      const owed = this.#shared.owed[block.index];
      if (owed === undefined) continue;
      const middle = hostPageOf(this.#blocks, block, page);
      const end = Math.min(owed.pages, middle + NEIGHBOURS + 1);
      const found = owed.nextSet(Math.max(0, middle - NEIGHBOURS), end);
      if (found < 0) continue;
      this.block = block;
      this.hostPage = found;
      this.#end = end;
      return true;
    }
    return false;
  }

  run(most: number): number {
    return Math.min(most, this.#end - this.hostPage);
  }

  next(): void {
    // It is owed no more: the next `find` passes over it.
  }
}
