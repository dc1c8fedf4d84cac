/**
 * Where the pages of a mapped-ram file lie: said by its bitmaps, without reading a page. That makes
 * a restore of any size start at once, and it leaves no checksums: what the file holds is believed.
 */
import { readAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import type { WalkedBlock } from "../../stream/walk.ts";
import { StreamError } from "../../util/errors.ts";
import { ZERO_PAGE } from "./where.ts";

/** Bytes of a bitmap that are looked at at once: those of 2 GiB of memory. */
const STEP_BYTES = 64 * 1024;

/** Fills `where` for a block from its bitmap in the file. @throws StreamError TRUNCATED. */
export function readMappedBlock(fd: number, block: WalkedBlock, where: Float64Array): void {
  const layout = block.mappedRam;
  if (layout === undefined) return;
  const scratch = mapScratch(STEP_BYTES);
  for (let done = 0; done < layout.bitmapBytes; done += STEP_BYTES) {
    const wanted = Math.min(STEP_BYTES, layout.bitmapBytes - done);
    const at = layout.bitmapOffset + done;
    if (readAt(fd, scratch.address, wanted, at) !== wanted) {
      const place = `at byte ${at} of the stream`;
      throw new StreamError("TRUNCATED", `The bitmap of "${block.name}" is not there (${place})`);
    }
    for (let page = done * 8; page < Math.min((done + wanted) * 8, where.length); page++) {
      const bit = page - done * 8;
      const isThere = (((scratch.bytes[bit >>> 3] ?? 0) >>> (bit & 7)) & 1) !== 0;
      where[page] = isThere ? layout.pagesOffset + page * TARGET_PAGE_SIZE : ZERO_PAGE;
    }
  }
}
