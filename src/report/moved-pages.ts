/**
 * Which part of guest memory moved, and why: counts by kind and by address, which threads add to and
 * main looks at now and then. They are for the page of `--report FILE.html`, and made only for it.
 *
 * Guest memory, all blocks one after the other, is divided into MOVED_BINS equal bins. Layout: one
 * uint32 for each kind and bin, `kind * MOVED_BINS + bin`. Several threads may add to the same one.
 */
import type { RamBlock } from "../ram/block.ts";
import { pagesBefore, totalPages } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";

/** Why a page moves; the index is the kind. */
export const KINDS = ["precopy", "push", "request", "replay"] as const;
export type KindName = (typeof KINDS)[number];

export const KIND = {
  /** Before the switchover, maybe several times. */
  precopy: 0,
  /** After it, in the background. */
  push: 1,
  /** Because the guest waited for it. */
  request: 2,
  /** Because the guest asked for it in an earlier restore. Only the source knows. */
  replay: 3,
} as const satisfies Record<KindName, number>;
export type Kind = (typeof KIND)[KindName];

export const MOVED_BINS = 512;

/** Shared memory for the counts of one migration, all zero. */
export function createMovedPages(bins = MOVED_BINS): SharedArrayBuffer {
  return new SharedArrayBuffer(KINDS.length * bins * Uint32Array.BYTES_PER_ELEMENT);
}

/** Target pages in each bin but the last ones, which may have fewer. */
export function pagesPerBin(pages: number): number {
  return Math.max(1, Math.ceil(pages / MOVED_BINS));
}

/** A thread's hand on the counts. */
export class MovedPages {
  readonly #counts: Uint32Array<SharedArrayBuffer>;
  readonly #perBin: number;
  /** Target pages before each block. */
  readonly #before: readonly number[];

  constructor(shared: SharedArrayBuffer, blocks: readonly RamBlock[]) {
    this.#counts = new Uint32Array(shared);
    this.#perBin = pagesPerBin(totalPages(blocks));
    this.#before = blocks.map((block) => pagesBefore(blocks, block));
  }

  /** Counts the target pages [offset, offset + pages * 4096) of a block. Allocates nothing. */
  add(kind: Kind, block: RamBlock, offset: number, pages: number): void {
    const first = (this.#before[block.index] ?? 0) + offset / TARGET_PAGE_SIZE;
    const end = first + pages;
    for (let page = first; page < end;) {
      const bin = Math.floor(page / this.#perBin);
      const next = Math.min(end, (bin + 1) * this.#perBin);
      Atomics.add(this.#counts, kind * MOVED_BINS + bin, next - page);
      page = next;
    }
  }
}

/** Joins pages that come one after the other into runs: one addition each is enough. */
export class MovedRuns {
  readonly #moved: MovedPages;
  #kind: Kind = KIND.push;
  #block: RamBlock | undefined;
  #offset = 0;
  #pages = 0;

  constructor(moved: MovedPages) {
    this.#moved = moved;
  }

  /** The target pages [offset, offset + pages * 4096) of a block move. */
  add(kind: Kind, block: RamBlock, offset: number, pages: number): void {
    const next = this.#offset + this.#pages * TARGET_PAGE_SIZE;
    if (block === this.#block && offset === next && kind === this.#kind) {
      this.#pages += pages;
      return;
    }
    this.flush();
    this.#kind = kind;
    this.#block = block;
    this.#offset = offset;
    this.#pages = pages;
  }

  /** Counts what was joined. */
  flush(): void {
    if (this.#block === undefined) return;
    this.#moved.add(this.#kind, this.#block, this.#offset, this.#pages);
    this.#block = undefined;
  }
}

/** For one writer of pages; undefined where nobody wants to see what moves. */
export function openMovedRuns(
  shared: SharedArrayBuffer | undefined,
  blocks: readonly RamBlock[],
): MovedRuns | undefined {
  return shared === undefined ? undefined : new MovedRuns(new MovedPages(shared, blocks));
}
