/** What the source discards of a guest before LISTEN: pages that went stale there, and come again. */
import { DiscardList } from "../../syscalls/discard-list.ts";
import { PageBitmap } from "../ram/bitmap.ts";
import { targetPages, totalBytes } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import type { ByteRange } from "../stream/command.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { DiscardLimit } from "../stream/discard-limit.ts";
import { StreamError } from "../util/errors.ts";

export class Discards {
  /** Target pages that were ever discarded, by block. */
  readonly pages: readonly PageBitmap[];
  readonly #limit: DiscardLimit;
  /** What is still there of it: forgotten together, at the latest at LISTEN. */
  #list: DiscardList | undefined;

  constructor(blocks: readonly RamBlock[]) {
    this.pages = blocks.map((block) => new PageBitmap(targetPages(block)));
    this.#limit = new DiscardLimit(totalBytes(blocks));
  }

  /** Counts what one command discards. @throws StreamError where it is too much. */
  count(ranges: readonly ByteRange[]): void {
    this.#limit.take(ranges);
  }

  /** Notes a range of a block, which `requireWhole` has let pass; its target pages, [first, end). */
  note(block: RamBlock, { start, length }: ByteRange): { first: number; end: number } {
    // What is stored, or another process's, is not forgotten here.
    if (block.address !== 0) {
      this.#list ??= new DiscardList();
      this.#list.add(block.address + start, length);
    }
    const first = start / TARGET_PAGE_SIZE;
    const end = Math.min(targetPages(block), Math.ceil((start + length) / TARGET_PAGE_SIZE));
    this.pages[block.index]?.setRange(first, end - first);
    return { first, end };
  }

  /** Gives back to the kernel what was noted so far. */
  forget(): void {
    this.#list?.flush();
  }
}

/** Only whole pages of a block can be discarded. @throws StreamError BAD_RANGE. */
export function requireWhole(block: RamBlock, { start, length }: ByteRange): void {
  const { pageSize } = block;
  const end = start + length;
  const aligned = start % pageSize === 0 && (end % pageSize === 0 || end === block.length);
  if (aligned && end <= block.length) return;
  throw new StreamError(
    "BAD_RANGE",
    `The source discards ${length} bytes at ${start} of ${block.name}, which has ` +
      `${block.length} bytes in pages of ${pageSize}`,
  );
}
