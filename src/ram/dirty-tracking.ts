/**
 * Dirty tracking by the kernel: userfaultfd in WP_ASYNC mode lets every first write to a page pass
 * and notes it; PAGEMAP_SCAN reads the notes and takes them back in one step (Linux 6.7). Neither
 * stops the guest, and no page has to be sent to be known.
 */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { PageMap } from "../../syscalls/pagemap.ts";
import { openUserfault, userfaultFeatures } from "../../syscalls/userfaultfd.ts";
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { PageBitmap } from "./bitmap.ts";
import type { RamBlock } from "./block.ts";

const NEEDED =
  UFFD.UFFD_FEATURE_PAGEFAULT_FLAG_WP |
  UFFD.UFFD_FEATURE_WP_UNPOPULATED |
  UFFD.UFFD_FEATURE_WP_ASYNC;

/** Why this host cannot track dirty pages, or undefined where it can. */
export function dirtyTrackingMissing(): string | undefined {
  let features: number;
  try {
    features = userfaultFeatures();
  } catch (error) {
    return `userfaultfd is not available (${String(error)})`;
  }
  if ((features & NEEDED) !== NEEDED) return "userfaultfd lacks WP_ASYNC (Linux 6.7 has it)";
  return undefined;
}

/** Notes which pages of some RAM blocks are written, from `start` until `close`. */
export class DirtyTracker {
  readonly #userfault: Userfault;
  readonly #pageMap = new PageMap();
  readonly #blocks: readonly RamBlock[];

  /** @throws SyscallError where the kernel lacks it: see `dirtyTrackingMissing`. */
  constructor(blocks: readonly RamBlock[]) {
    this.#blocks = blocks;
    const huge = blocks.some((block) => block.pageSize !== TARGET_PAGE_SIZE);
    this.#userfault = openUserfault().userfault;
    this.#userfault.enable(NEEDED | (huge ? UFFD.UFFD_FEATURE_WP_HUGETLBFS_SHMEM : 0));
  }

  /** Write-protects everything: what is written from now on is dirty. */
  start(): void {
    for (const { address, length } of this.#blocks) {
      this.#userfault.register(address, length, UFFD.UFFDIO_REGISTER_MODE_WP);
      this.#userfault.writeProtect(address, length);
    }
  }

  /**
   * Adds the pages that were written since the last call to the dirty bitmaps, in the order of the
   * blocks, and starts afresh. A discarded page counts as written; but not a huge one, whose mark
   * the kernel keeps through a discard: a guest of huge pages must not discard while it is sent.
   */
  collect(dirty: readonly PageBitmap[]): void {
    for (const [index, block] of this.#blocks.entries()) {
      const bitmap = dirty[index];
      if (bitmap === undefined) throw new Error(`no dirty bitmap for block ${block.name}`);
      this.#pageMap.takeWritten(block.address, block.address + block.length, (start, end) => {
        const first = (start - block.address) / TARGET_PAGE_SIZE;
        bitmap.setRange(first, (end - start) / TARGET_PAGE_SIZE);
      });
    }
  }

  /** Ends the tracking; closing the userfaultfd also lifts the write protection. */
  close(): void {
    this.#userfault.close();
    this.#pageMap.close();
  }
}
