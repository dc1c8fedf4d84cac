/**
 * The received bitmap that answers RECV_BITMAP during a recovery (QEMU's `ramblock_recv_bitmap_send`
 * and `ram_dirty_bitmap_reload`). The message RECV_BITMAP of the return path is followed by what
 * its length does not count: a u64 size, the bitmap, and a u64 that marks the end.
 *
 * Bit i, counted from the least significant bit of the first byte, stands for target page i of the
 * block. The size is rounded up to whole u64 words; the bits behind the last page mean nothing.
 */
import {
  RAM_BYTES_MAX,
  RECEIVED_BITMAP_END_HIGH,
  RECEIVED_BITMAP_END_LOW,
  TARGET_PAGE_BITS_MIN,
} from "./constants.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import { writeReturnPathMessage } from "./return-path.ts";
import type { StreamWriter } from "./writer.ts";

const PAGES_PER_WORD = 64;
const WORD_BYTES = 8;

/** Bytes of the bitmap of a block with `pages` target pages. */
export function receivedBitmapBytes(pages: number): number {
  if (pages > RAM_BYTES_MAX / 2 ** TARGET_PAGE_BITS_MIN) throw new RangeError(`${pages} pages`);
  return Math.ceil(pages / PAGES_PER_WORD) * WORD_BYTES;
}

/**
 * Writes what comes before the bitmap: the message and the size. The caller sends the bitmap from
 * where it lies, and `writeReceivedBitmapEnd` after it.
 */
export function writeReceivedBitmapStart(writer: StreamWriter, block: string, pages: number): void {
  writeReturnPathMessage(writer, { kind: "receivedBitmap", block });
  writer.u64(receivedBitmapBytes(pages));
}

/** Writes the mark that comes after the bitmap. */
export function writeReceivedBitmapEnd(writer: StreamWriter): void {
  writer.u32(RECEIVED_BITMAP_END_HIGH).u32(RECEIVED_BITMAP_END_LOW);
}

/** Reads size, bitmap and mark of a block with `pages` target pages (after the message). */
export function readReceivedBitmap(reader: StreamReader, block: string, pages: number): Uint8Array {
  const at = reader.offset;
  const size = reader.u64("size of a received bitmap");
  const expected = receivedBitmapBytes(pages);
  if (size !== expected) {
    const problem = `has ${size} bytes where ${pages} pages need ${expected}`;
    refuse("BAD_LENGTH", `The received bitmap of "${block}" ${problem}`, at);
  }
  const bitmap = reader.take(size);
  const markAt = reader.offset;
  const high = reader.u32();
  const low = reader.u32();
  if (high !== RECEIVED_BITMAP_END_HIGH || low !== RECEIVED_BITMAP_END_LOW) {
    refuse("BAD_VALUE", `The received bitmap of "${block}" has no end mark`, markAt);
  }
  return bitmap;
}
