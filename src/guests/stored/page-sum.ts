/** The checksum of a page that is kept in a file: what says that it is still what was stored. */
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";

const zeroPage = new Uint8Array(TARGET_PAGE_SIZE);

/** The sum of a page of zeros, and of no other page. */
export const ZERO_PAGE_SUM = Bun.hash.crc32(zeroPage);

/**
 * The sum of a page: CRC-32 (IEEE) of its bytes, as zlib computes it. A page that happens to have
 * the CRC of zeros without being zeros gets another sum, with the lowest bit flipped: nothing that
 * a guest writes is ever taken for a hole.
 */
export function pageSum(page: Uint8Array): number {
  const sum = Bun.hash.crc32(page);
  if (sum !== ZERO_PAGE_SUM || Buffer.compare(page, zeroPage) === 0) return sum;
  return (sum ^ 1) >>> 0;
}
