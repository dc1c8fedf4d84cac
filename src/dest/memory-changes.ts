/**
 * What the owner of the guest's memory does to it while it is filled, as events of its userfaultfd tell:
 * the guest discards pages, a VMM unmaps memory and moves it. It is noted before any page can be placed
 * again, so whoever calls this holds the lock for that.
 */
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import type { AddressMap } from "../ram/address-map.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PostcopyError } from "../util/errors.ts";
import { formatBytes } from "../util/units.ts";
import { WORD } from "./shared.ts";
import type { DestShared, PageState } from "./shared.ts";

/** What is changed. */
export interface ChangingMemory {
  shared: DestShared;
  blocks: readonly RamBlock[];
  pages: PageState;
  map: AddressMap;
}

export class MemoryChanges {
  readonly #memory: ChangingMemory;
  readonly #userfault: Userfault | undefined;

  constructor(memory: ChangingMemory, userfault: Userfault | undefined) {
    this.#memory = memory;
    this.#userfault = userfault;
  }

  /**
   * The pages of [start, end) are zero from now on, whatever the source still sends.
   * @throws PostcopyError PART_OF_PAGE, before anything is noted.
   */
  noteRemoved(start: number, end: number): void {
    const { shared, pages, map } = this.#memory;
    map.forEachPart(start, end, (block, offset, length) => this.#checkWhole(block, offset, length));
    map.forEachPart(start, end, (block, offset, length) => {
      const first = offset / TARGET_PAGE_SIZE;
      const count = length / TARGET_PAGE_SIZE;
      const requestedAt = pages.requestedAt[block];
      pages.removed[block]?.setRange(first, count);
      let fresh = 0;
      let awaited = false;
      for (let page = first; page < first + count; page++) {
        if (pages.received[block]?.set(page)) fresh++;
        if (requestedAt && Atomics.exchange(requestedAt, page, 0) !== 0) awaited = true;
      }
      Atomics.sub(shared.control, WORD.missing, fresh);
      shared.counters.add(DEST.removedPages, count);
      // What was asked for will be dropped when it comes, so whoever waits for it must fault again.
      if (awaited) this.#userfault?.wake(map.addressOf(block, offset), length);
    });
    Atomics.store(shared.control, WORD.anyRemoved, 1);
  }

  /**
   * A part of a huge page that is discarded is zeros where the page is there already (MADV_REMOVE of
   * hugetlbfs); where it is not, the rest of it is still to come, and nothing can place a part.
   */
  #checkWhole(index: number, offset: number, length: number): void {
    const { name, pageSize } = this.#memory.blocks[index] ?? { name: "", pageSize: 1 };
    if (offset % pageSize === 0 && length % pageSize === 0) return;
    const what = `The VMM gives ${formatBytes(length)} at ${offset} of ${name} back`;
    throw new PostcopyError("PART_OF_PAGE", `${what}, whose pages have ${formatBytes(pageSize)}`, {
      hint: "give whole huge pages back until all of the memory is there",
    });
  }

  /** [start, end) is no memory any more: what still comes of it goes nowhere. */
  noteUnmapped(start: number, end: number): void {
    this.noteRemoved(start, end);
    this.#memory.map.unmap(start, end);
  }

  /** What lay at `from` lies at `to`, in the place of what was there. */
  noteMoved(from: number, to: number, length: number): void {
    this.noteRemoved(to, to + length);
    this.#memory.map.move(from, to, length);
  }
}
