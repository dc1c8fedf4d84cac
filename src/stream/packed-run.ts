/** The pages of a run that came compressed. */
import { zstdDecompressSync } from "node:zlib";
import { TARGET_PAGE_SIZE } from "./constants.ts";
import { refuse } from "./refuse.ts";

/**
 * Unpacks the frame at bytes[at, at + length) into `out`, which it has to fill with `pages` pages and
 * not a byte more or less; nothing larger is ever made of it. `offset` is where it stands in the
 * stream. @throws StreamError BAD_PAGE.
 */
export function unpackRun(
  bytes: Uint8Array,
  at: number,
  length: number,
  pages: number,
  out: Uint8Array,
  offset: number,
): void {
  const expected = pages * TARGET_PAGE_SIZE;
  let unpacked: Uint8Array;
  try {
    unpacked = zstdDecompressSync(bytes.subarray(at, at + length), { maxOutputLength: expected });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return refuse("BAD_PAGE", `A compressed run of ${pages} pages does not unpack: ${why}`, offset);
  }
  if (unpacked.length !== expected) {
    const what = `A compressed run of ${pages} pages unpacks to ${unpacked.length} bytes`;
    refuse("BAD_PAGE", what, offset);
  }
  out.set(unpacked);
}
