/** In which order the background push takes the host pages that are owed. */
import type { RamBlock } from "../ram/block.ts";
import { blockOfPage, hostPageOf, totalPages } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { SourceShared } from "./shared.ts";

/** An order of pages, some of which others may have sent already. */
export interface PushOrder {
  /** The page it stands on, after `find` has found one. */
  readonly block: RamBlock;
  readonly hostPage: number;
  /** Stands on the next page, from where it stands on, that is still owed; false if none is left. */
  find(): boolean;
  /** How many of the pages from the one it stands on are consecutive in its block; at most `most`. */
  run(most: number): number;
  /** Leaves the page, and those behind it that are as good as sent: `count` in all. */
  next(count: number): void;
}

/** Through memory by addresses, round all blocks. */
export class AddressOrder implements PushOrder {
  block: RamBlock;
  hostPage = 0;
  readonly #blocks: readonly RamBlock[];
  readonly #shared: SourceShared;

  /** It begins behind this share of all memory (from 0 to less than 1). */
  constructor(blocks: readonly RamBlock[], shared: SourceShared, start = 0) {
    const page = Math.floor(start * totalPages(blocks));
    this.#blocks = blocks;
    this.#shared = shared;
    this.block = blockOfPage(blocks, page);
    this.hostPage = hostPageOf(blocks, this.block, page);
  }

  find(): boolean {
    for (let turn = 0; turn <= this.#blocks.length; turn++) {
      const owed = this.#shared.owed[this.block.index];
      if (owed !== undefined && this.hostPage < owed.pages) {
        const found = owed.nextSet(this.hostPage);
        if (found >= 0) {
          this.hostPage = found;
          return true;
        }
      }
      const after = this.#blocks[(this.block.index + 1) % this.#blocks.length];
      if (after !== undefined) this.block = after;
      this.hostPage = 0;
    }
    return false;
  }

  run(most: number): number {
    return most;
  }

  next(count: number): void {
    this.hostPage += count;
  }
}

/** A list of target pages, counted over all blocks: a recorded working set in its order. */
export class ListedOrder implements PushOrder {
  block: RamBlock;
  hostPage = 0;
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
      this.block = blockOfPage(this.#blocks, page);
      this.hostPage = hostPageOf(this.#blocks, this.block, page);
      if (this.#shared.owed[this.block.index]?.test(this.hostPage)) return true;
    }
    return false;
  }

  run(most: number): number {
    const limit = Math.min(this.#pages.length, this.#at + most);
    const first = this.#pages[this.#at] ?? 0;
    let at = this.#at + 1;
    // Its pages are target pages: only where those are placed one by one do they make runs.
    while (at < limit && this.#pages[at] === first + at - this.#at) at++;
    return this.block.pageSize === TARGET_PAGE_SIZE ? at - this.#at : 1;
  }

  next(count: number): void {
    this.#at += count;
  }
}

/** The block that an order stands in before it has found anything. */
export function firstBlock(blocks: readonly RamBlock[]): RamBlock {
  const [first] = blocks;
  if (first === undefined) throw new Error("a guest without RAM blocks");
  return first;
}
