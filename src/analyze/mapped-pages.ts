/** Pages of a mapped-ram file, counted in its bitmaps: none of them is read. */
import { readAt } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { popCount } from "../ram/bitmap.ts";
import type { MappedRamLayout } from "../stream/mapped-ram.ts";
import { StreamError } from "../util/errors.ts";

/** Bytes of a bitmap that are looked at at once: those of 2 GiB of memory. */
const STEP_BYTES = 64 * 1024;

/** Counts the pages of a block that are there. @throws StreamError TRUNCATED. */
export function countMappedPages(fd: number, name: string, layout: MappedRamLayout): number {
  const scratch = mapScratch(STEP_BYTES);
  const words = new Int32Array(scratch.bytes.buffer, scratch.bytes.byteOffset, STEP_BYTES / 4);
  let pages = 0;
  for (let done = 0; done < layout.bitmapBytes; done += STEP_BYTES) {
    const wanted = Math.min(STEP_BYTES, layout.bitmapBytes - done);
    const at = layout.bitmapOffset + done;
    if (readAt(fd, scratch.address, wanted, at) !== wanted) {
      const place = `at byte ${at} of the stream`;
      throw new StreamError("TRUNCATED", `The bitmap of "${name}" is not there (${place})`);
    }
    for (let word = 0; word < wanted / 4; word++) pages += popCount(words[word] ?? 0);
  }
  return pages;
}
