/**
 * Which pages of a stream have content at its end: a bit a page, so that it is known whether a
 * guest can be made of it. A page that is discarded must come again, and after the switch no page
 * may come twice.
 */
import { PageBitmap } from "../ram/bitmap.ts";
import type { ByteRange } from "../stream/command.ts";
import type { WalkedBlock, WalkedPage } from "../stream/walk.ts";

/** Guests whose bits would take more (above 8 TiB) are counted without. */
const BITMAP_BYTES_MAX = 256 * 1024 * 1024;

export class Coverage {
  /** Pages that came a second time after the switch. */
  repeated = 0;
  readonly #pageSize: number;
  /** By block; empty where there would be too many. */
  readonly #there: PageBitmap[];

  constructor(blocks: readonly WalkedBlock[], pageSize: number) {
    this.#pageSize = pageSize;
    const pages = blocks.reduce((sum, { length }) => sum + length / pageSize, 0);
    const tooMany = pages / 8 > BITMAP_BYTES_MAX;
    this.#there = tooMany ? [] : blocks.map(({ length }) => new PageBitmap(length / pageSize));
  }

  page({ block, offset, postcopy }: WalkedPage): void {
    const isNew = this.#there[block]?.set(offset / this.#pageSize);
    if (postcopy && isNew === false) this.repeated += 1;
  }

  discard(block: number, { start, length }: ByteRange): void {
    const there = this.#there[block];
    if (there === undefined) return;
    const first = Math.min(Math.floor(start / this.#pageSize), there.pages);
    const end = Math.min(Math.ceil((start + length) / this.#pageSize), there.pages);
    there.clearRange(first, end - first);
  }

  /** Pages of a block without content; null where they are not known. */
  missing(block: number): number | null {
    const there = this.#there[block];
    return there === undefined ? null : there.pages - there.count();
  }
}
