/** Runs of pages of zeros, found by their checksums. */
import { ZERO_PAGE_SUM } from "../stored/page-sum.ts";

/** Calls `visit` with each longest run of pages of zeros: its first page and their count. */
export function forEachZeroRun(
  sums: Uint32Array,
  visit: (page: number, count: number) => void,
): void {
  for (let first = sums.indexOf(ZERO_PAGE_SUM); first >= 0;) {
    let end = first + 1;
    while (end < sums.length && sums[end] === ZERO_PAGE_SUM) end++;
    visit(first, end - first);
    first = sums.indexOf(ZERO_PAGE_SUM, end);
  }
}
