import { describe, expect } from "bun:test";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { mapAnonymous, scratchAt } from "../../../syscalls/memory.ts";
import { PageMap } from "../../../syscalls/pagemap.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import { dirtyTrackingMissing } from "../../../src/ram/dirty-tracking.ts";
import { requireOrSkip } from "../../helpers/need.ts";

const PAGE = 4096;
const scanTest = requireOrSkip({ what: "PAGEMAP_SCAN", missing: dirtyTrackingMissing() });

/** Runs `body` with a page map over memory that is write-protected by a userfaultfd. */
function withProtected(
  pages: number,
  body: (pageMap: PageMap, address: number, write: (page: number) => void) => void,
): void {
  const { userfault } = openUserfault();
  const pageMap = new PageMap();
  using mapping = mapAnonymous(pages * PAGE);
  const { address, length } = mapping;
  try {
    userfault.enable(UFFD.UFFD_FEATURE_WP_ASYNC | UFFD.UFFD_FEATURE_WP_UNPOPULATED);
    userfault.register(address, length, UFFD.UFFDIO_REGISTER_MODE_WP);
    userfault.writeProtect(address, length);
    body(pageMap, address, (page) => {
      scratchAt(address + page * PAGE, 1).bytes[0] = 1;
    });
  } finally {
    userfault.close();
    pageMap.close();
  }
}

/** The regions that a scan finds, as page numbers from `address` on. */
function take(pageMap: PageMap, address: number, from: number, to: number): [number, number][] {
  const regions: [number, number][] = [];
  pageMap.takeWritten(address + from * PAGE, address + to * PAGE, (start, end) => {
    regions.push([(start - address) / PAGE, (end - address) / PAGE]);
  });
  return regions;
}

describe("written pages", () => {
  scanTest("are handed over as regions, and are protected again at once", () => {
    withProtected(32, (pageMap, address, write) => {
      [0, 1, 2, 9, 31].forEach(write);
      expect(take(pageMap, address, 0, 32)).toEqual([
        [0, 3],
        [9, 10],
        [31, 32],
      ]);
      expect(take(pageMap, address, 0, 32)).toEqual([]);
    });
  });

  scanTest("outside of the range asked for stay what they are", () => {
    withProtected(32, (pageMap, address, write) => {
      [3, 4, 5, 6].forEach(write);
      expect(take(pageMap, address, 4, 6)).toEqual([[4, 6]]);
      expect(take(pageMap, address, 0, 32)).toEqual([
        [3, 4],
        [6, 7],
      ]);
      expect(take(pageMap, address, 7, 7)).toEqual([]);
    });
  });

  scanTest("cannot be found in memory that nobody protects", () => {
    const pageMap = new PageMap();
    using mapping = mapAnonymous(PAGE);
    try {
      expect(() => take(pageMap, mapping.address, 0, 1)).toThrow(
        "ioctl(PAGEMAP_SCAN, 4096 bytes) failed: EPERM",
      );
    } finally {
      pageMap.close();
    }
  });
});
