/** Compresses runs of pages before they are sent, and knows what that costs and yields. */
import { mapScratch } from "../../syscalls/memory.ts";
import type { RamBlock } from "../ram/block.ts";
import type { PageReader } from "../ram/page-reader.ts";
import type { PackingCost } from "./compression-chooser.ts";
import { PACKED_RUN_PAGES_MAX, TARGET_PAGE_SIZE } from "../stream/constants.ts";

/** Pages change little from zstd's lowest level to higher ones, and those cost a multiple. */
const LEVEL = 1;
/** A frame must be this much smaller than its pages, or they are sent as they are. */
const WORTH = 0.9;

export class RunPacker {
  /** What it came to; the owner sets it to 0. */
  readonly sum: PackingCost = { before: 0, after: 0, ms: 0 };
  readonly #buffer = mapScratch(PACKED_RUN_PAGES_MAX * TARGET_PAGE_SIZE);

  /**
   * One frame of `count` pages that are no zeros, at most PACKED_RUN_PAGES_MAX; undefined where it would
   * not be much smaller: `read` has them as they are then. Throws as the reader does.
   */
  pack(pages: PageReader, block: RamBlock, offset: number, count: number): Uint8Array | undefined {
    const began = performance.now();
    const bytes = count * TARGET_PAGE_SIZE;
    const buffer = this.#buffer;
    if (pages.copyPages === undefined) {
      for (let at = 0; at < bytes; at += TARGET_PAGE_SIZE) {
        pages.copyPage(block, offset + at, buffer.bytes, at);
      }
    } else {
      pages.copyPages(block, offset, count, buffer, 0, TARGET_PAGE_SIZE);
    }
    const frame = Bun.zstdCompressSync(this.read(count), { level: LEVEL });
    const pays = frame.length < WORTH * bytes;
    this.sum.ms += performance.now() - began;
    this.sum.before += bytes;
    this.sum.after += pays ? frame.length : bytes;
    return pays ? frame : undefined;
  }

  /** The bytes of the `count` pages that `pack` has read last. */
  read(count: number): Uint8Array {
    return this.#buffer.bytes.subarray(0, count * TARGET_PAGE_SIZE);
  }
}
