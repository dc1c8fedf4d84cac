/**
 * Faults that are no business of the source's: on pages that are zeros, that came meanwhile, or that
 * others have put into a memory file. They are answered in the fault thread, which reads the events.
 */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { ChangingMemory } from "./memory-changes.ts";
import { checkPlaced } from "./place-failure.ts";
import { WORD } from "./shared.ts";

export class LocalPages {
  readonly #memory: ChangingMemory;
  readonly #userfault: Userfault | undefined;
  readonly #makeWay: () => void;
  #zeros: Scratch | undefined;

  /** `makeWay` reads the events that keep pages from being placed; after it the memory may be changed. */
  constructor(memory: ChangingMemory, userfault: Userfault | undefined, makeWay: () => void) {
    this.#memory = memory;
    this.#userfault = userfault;
    this.#makeWay = makeWay;
  }

  /** Wakes whoever waits for the host page at `start` of a block: it is there. */
  wake({ index, pageSize }: RamBlock, start: number): void {
    const { map, shared } = this.#memory;
    shared.counters.add(DEST.faultsLocal, 1);
    this.#userfault?.wake(map.addressOf(index, start), pageSize);
  }

  /** Zeros for a host page, unless it is there already. */
  placeZeros(block: RamBlock, start: number): void {
    const result = this.#attempt(block, start, (target) => this.#zero(target, block.pageSize));
    if (result === undefined) return;
    // Another has placed it, or the VMM has taken it back without a word.
    if (result !== -ERRNO.EEXIST && result !== -ERRNO.ENOENT) {
      checkPlaced(result, `zeros at ${start} of ${block.name}`);
    }
    this.wake(block, start);
  }

  /**
   * Maps a host page of a memory file that somebody has filled already, in whatever way. Waking alone
   * would only make it fault again. One that is in the file no more is missing when it faults again.
   */
  mapCached(block: RamBlock, start: number): void {
    const result = this.#attempt(block, start, (target) => {
      return this.#userfault?.continue(target, block.pageSize) ?? 0;
    });
    if (result === undefined) return;
    if (result > 0 || result === -ERRNO.EEXIST) this.#noteHere(block, start);
    else if (result !== -ERRNO.EFAULT && result !== -ERRNO.ENOENT) {
      checkPlaced(result, `UFFDIO_CONTINUE at ${start} of ${block.name}`);
    }
    this.wake(block, start);
  }

  /**
   * Tries until no event is in the way; the result. Undefined where the events were about just this
   * page, which lies nowhere now.
   */
  #attempt({ index }: RamBlock, start: number, place: (at: number) => number): number | undefined {
    const { map } = this.#memory;
    for (;;) {
      const result = place(map.addressOf(index, start));
      if (result !== -ERRNO.EAGAIN) return result;
      this.#makeWay();
      if (map.pieceOf(index, start) < 0) return undefined;
    }
  }

  /** Zeros for one host page; UFFDIO_ZEROPAGE is not for hugetlbfs, so there they are copied. */
  #zero(target: number, pageSize: number): number {
    if (this.#userfault === undefined) return 0;
    if (pageSize === TARGET_PAGE_SIZE) return this.#userfault.zero(target, pageSize);
    if (this.#zeros === undefined || this.#zeros.bytes.length < pageSize) {
      this.#zeros = mapScratch(pageSize);
    }
    return this.#userfault.copy(target, this.#zeros.address, pageSize);
  }

  /** A host page is in place that nobody has sent. Under the lock, as LISTEN may count just now. */
  #noteHere(block: RamBlock, start: number): void {
    const { pages, shared } = this.#memory;
    const first = start / TARGET_PAGE_SIZE;
    shared.placingLock.lockUrgent();
    try {
      const count = targetPagesPerHostPage(block);
      const fresh = pages.received[block.index]?.setRunCounting(first, count) ?? 0;
      Atomics.sub(shared.control, WORD.missing, fresh);
    } finally {
      shared.placingLock.unlock();
    }
  }
}
