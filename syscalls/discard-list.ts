/**
 * Many ranges of memory discarded at once: process_madvise(2) on ourselves (Linux 6.13). One call
 * flushes the TLBs of all processors once, where a call a range does so for each: on a nested host
 * that is 100 µs a range. Older kernels are served range by range.
 */
import { ERRNO } from "./abi/errno.ts";
import { MMAN } from "./abi/mman.ts";
import { closeDescriptor } from "./descriptor.ts";
import { check } from "./error.ts";
import { IOVEC_COUNT_MAX } from "./io.ts";
import { discardPages, mapScratch, putU64 } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

const IOVEC_BYTES = 16;

/** What a kernel answers that has no process_madvise(2), or not this advice, or not for us. */
const UNSUPPORTED: ReadonlySet<number> = new Set([
  -ERRNO.ENOSYS,
  -ERRNO.EINVAL,
  -ERRNO.EPERM,
  -ERRNO.EBADF,
]);

/** Ranges of private anonymous memory of this process; one thread uses it. */
export class DiscardList {
  readonly #scratch = mapScratch(IOVEC_COUNT_MAX * IOVEC_BYTES);
  readonly #ranges: { address: number; length: number }[] = [];
  #atOnce: boolean;

  /** `atOnce` is false for a kernel that is known to have no way for many ranges. */
  constructor(atOnce = true) {
    this.#atOnce = atOnce;
  }

  /** Notes a range: whole pages that nobody may look at before `flush`. */
  add(address: number, length: number): void {
    this.#ranges.push({ address, length });
    if (this.#ranges.length === IOVEC_COUNT_MAX) this.flush();
  }

  /** Discards all that was noted; it reads as zeros afterwards. */
  flush(): void {
    const ranges = this.#ranges.splice(0);
    if (ranges.length === 0 || this.#flushAtOnce(ranges)) return;
    for (const { address, length } of ranges) discardPages(address, length);
  }

  #flushAtOnce(ranges: readonly { address: number; length: number }[]): boolean {
    if (!this.#atOnce) return false;
    const { address, view } = this.#scratch;
    let bytes = 0;
    for (const [i, range] of ranges.entries()) {
      putU64(view, i * IOVEC_BYTES, range.address);
      putU64(view, i * IOVEC_BYTES + 8, range.length);
      bytes += range.length;
    }
    const result = adviseSelf(address, ranges.length, MMAN.MADV_DONTNEED);
    if (UNSUPPORTED.has(result)) {
      this.#atOnce = false;
      return false;
    }
    check("process_madvise", result, `${ranges.length} ranges, MADV_DONTNEED`);
    // A part that was left is discarded range by range, and says what keeps it.
    return result === bytes;
  }
}

/** process_madvise(2) on this process: the bytes advised, or a negative errno; ENOSYS without a way. */
function adviseSelf(vector: number, count: number, advice: number): number {
  const self = syscall(NR.pidfd_open, process.pid, 0);
  if (self < 0) return -ERRNO.ENOSYS;
  const result = syscall(NR.process_madvise, self, vector, count, advice, 0);
  closeDescriptor(self);
  return result;
}
