/** Runs of pages of zeros, found by their checksums. */
import { ZERO_PAGE_SUM } from "../stored/page-sum.ts";

/** Calls `visit` with each longest run of pages of zeros: its first page and their count. */
export function forEachZeroRun(
  sums: Uint32Array,
  visit: (page: number, count: number) => void,
): void {
  for (let page = 0; page < sums.length;) {
    if (sums[page] !== ZERO_PAGE_SUM) {
      page++;
      continue;
    }
    const first = page;
    while (page < sums.length && sums[page] === ZERO_PAGE_SUM) page++;
    visit(first, page - first);
  }
}
