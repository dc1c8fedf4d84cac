/**
 * Pages of a source with the capability `compress` (QEMU up to 9.0): each is a complete zlib stream
 * that inflates to exactly one target page. The source is not trusted: inflating stops at a page.
 */
import { inflateSync } from "node:zlib";
import { refuse } from "./refuse.ts";

/**
 * Inflates source[at, at + length) into `page`, which it must fill exactly; `base` is the stream
 * offset of source[0]. A payload that is not valid is refused and leaves the page as it was.
 */
export function inflatePage(
  source: Uint8Array,
  at: number,
  length: number,
  page: Uint8Array,
  base = 0,
): void {
  const inflated = inflateBounded(source.subarray(at, at + length), page.length);
  if (inflated?.length !== page.length) {
    const problem = `does not inflate to a page of ${page.length} bytes`;
    refuse("BAD_PAGE", `A compressed page ${problem}`, base + at);
  }
  page.set(inflated);
}

/** The inflated bytes; undefined if the data is damaged or inflates to more than `bytesMax`. */
function inflateBounded(data: Uint8Array, bytesMax: number): Uint8Array | undefined {
  try {
    return inflateSync(data, { maxOutputLength: bytesMax });
  } catch (error) {
    // zlib's complaints (Z_DATA_ERROR, ERR_BUFFER_TOO_LARGE and so on) carry a code; others are ours.
    if (error instanceof Error && "code" in error) return undefined;
    throw error;
  }
}
