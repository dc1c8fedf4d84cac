/** PAGEMAP_SCAN (Linux 6.7): which pages were written since they were last write-protected. */
import { ERRNO } from "./abi/errno.ts";
import { FCNTL } from "./abi/file.ts";
import { PAGEMAP, PAGEMAP_STRUCTS } from "./abi/pagemap.ts";
import { closeDescriptor } from "./descriptor.ts";
import { check } from "./error.ts";
import { getU64, mapScratch, putU64 } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

const REGION_BYTES = PAGEMAP_STRUCTS["struct page_region"].size;
const ARGUMENT_BYTES = PAGEMAP_STRUCTS["struct pm_scan_arg"].size;
const ARGUMENT = PAGEMAP_STRUCTS["struct pm_scan_arg"].fields;
/** Regions taken by one ioctl: 96 KiB of scratch memory. */
const REGIONS_PER_SCAN = 4096;

/** /proc/self/pagemap, opened for scanning; one thread uses it. */
export class PageMap {
  readonly #fd: number;
  readonly #scratch = mapScratch(ARGUMENT_BYTES + REGIONS_PER_SCAN * REGION_BYTES);

  constructor() {
    const path = mapScratch(32);
    path.bytes.set(new TextEncoder().encode("/proc/self/pagemap"));
    const flags = FCNTL.O_RDONLY | FCNTL.O_CLOEXEC;
    const fd = syscall(NR.openat, FCNTL.AT_FDCWD, path.address, flags);
    this.#fd = check("openat", fd, "/proc/self/pagemap");
  }

  close(): void {
    closeDescriptor(this.#fd);
  }

  /**
   * Finds the written pages of [start, end), write-protects them again in the same step, and hands
   * each contiguous region to `take`. The range must be registered with WP_ASYNC.
   * @throws SyscallError ENOTTY before Linux 6.7, EPERM without WP_ASYNC.
   */
  takeWritten(start: number, end: number, take: (start: number, end: number) => void): void {
    const { address, view } = this.#scratch;
    let from = start;
    while (from < end) {
      putU64(view, ARGUMENT.size, ARGUMENT_BYTES);
      putU64(view, ARGUMENT.flags, PAGEMAP.PM_SCAN_WP_MATCHING | PAGEMAP.PM_SCAN_CHECK_WPASYNC);
      putU64(view, ARGUMENT.start, from);
      putU64(view, ARGUMENT.end, end);
      putU64(view, ARGUMENT.walk_end, 0);
      putU64(view, ARGUMENT.vec, address + ARGUMENT_BYTES);
      putU64(view, ARGUMENT.vec_len, REGIONS_PER_SCAN);
      putU64(view, ARGUMENT.max_pages, 0);
      putU64(view, ARGUMENT.category_inverted, 0);
      putU64(view, ARGUMENT.category_mask, PAGEMAP.PAGE_IS_WRITTEN);
      putU64(view, ARGUMENT.category_anyof_mask, 0);
      putU64(view, ARGUMENT.return_mask, PAGEMAP.PAGE_IS_WRITTEN);
      const regions = syscall(NR.ioctl, this.#fd, PAGEMAP.PAGEMAP_SCAN, address);
      if (regions === -ERRNO.EINTR) continue;
      check("ioctl", regions, `PAGEMAP_SCAN, ${end - from} bytes`);
      for (let i = 0; i < regions; i++) {
        const at = ARGUMENT_BYTES + i * REGION_BYTES;
        take(getU64(view, at), getU64(view, at + 8));
      }
      const walked = getU64(view, ARGUMENT.walk_end);
      if (walked <= from) throw new Error("PAGEMAP_SCAN did not advance");
      from = walked;
    }
  }
}
