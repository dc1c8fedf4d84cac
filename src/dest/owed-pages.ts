/**
 * What the source owes up to LISTEN: it discards pages that went stale, and sends some of them again.
 * From when a switchover is near, what is missing is counted as it goes and comes, so that the guest
 * does not have to stand while all of its pages are looked through.
 */
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import type { ByteRange } from "../stream/command.ts";
import type { ArrivingMemory } from "./arriving-memory.ts";
import { Discards, requireWhole } from "./discards.ts";
import { requireAllDiscarded, requireNotPlaced } from "./foreign-memory.ts";
import type { DestGuest } from "./guest.ts";
import { settleMissing } from "./missing-pages.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

interface OwedContext {
  guest: Pick<DestGuest, "reserve">;
  shared: DestShared;
}

export class OwedPages {
  readonly #context: OwedContext;
  readonly #memory: ArrivingMemory;
  readonly #discards: Discards;
  /** Target pages that are missing, from when they are counted as they go and come. */
  #missing: number | undefined;

  constructor(context: OwedContext, memory: ArrivingMemory) {
    this.#context = context;
    this.#memory = memory;
    this.#discards = new Discards(memory.blocks);
  }

  /**
   * Forgets ranges that went stale at the source: they will fault, and will be sent again.
   * @throws StreamError; LIVE_SOURCE where they cannot be forgotten.
   */
  discard(block: RamBlock, ranges: readonly ByteRange[]): void {
    this.#discards.count(ranges);
    for (const range of ranges) {
      requireWhole(block, range);
      this.#context.guest.reserve?.(block, range.start, range.length);
      const { first, end } = this.#discards.note(block, range);
      if (this.#memory.foreign === undefined) this.#forget(block, first, end);
      else requireNotPlaced(this.#memory.pages, block, first, end);
    }
  }

  #forget({ index }: RamBlock, first: number, end: number): void {
    const { received, unpopulated } = this.#memory.pages;
    if (this.#missing !== undefined) {
      this.#missing += received[index]?.countRange(first, end - first) ?? 0;
    }
    received[index]?.clearRange(first, end - first);
    unpopulated[index]?.clearRange(first, end - first);
  }

  /** Gives back to the kernel what was discarded so far. */
  giveBack(): void {
    this.#discards.forget();
  }

  /** So many target pages have come that were not here. */
  arrived(count: number): void {
    if (this.#missing !== undefined) this.#missing -= count;
  }

  /** A switchover is near: from now on pages are missing as they are discarded. */
  countAhead(): void {
    // A VMM's guest runs, and is not told yet that what nobody sends it is zeros.
    if (this.#memory.foreign !== undefined) return;
    this.#missing = settleMissing(this.#memory.pages, this.#discards.pages);
  }

  /** LISTEN: how many pages are missing is known from here on, to every thread. */
  settle(): void {
    const { control, counters, placingLock } = this.#context.shared;
    const { pages, foreign } = this.#memory;
    // A VMM's guest may discard pages just now.
    placingLock.lock();
    try {
      if (foreign !== undefined) requireAllDiscarded(pages, this.#discards.pages);
      const missing = this.#missing ?? settleMissing(pages, this.#discards.pages);
      Atomics.store(control, WORD.missing, missing);
      counters.set(DEST.missingPages, missing);
    } finally {
      placingLock.unlock();
    }
  }
}
