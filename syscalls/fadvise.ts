/** posix_fadvise(2): what the page cache is told of a file. */
import { FADVISE } from "./abi/file.ts";
import { check } from "./error.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Has the kernel forget what it holds of a file in memory, so that what is read next comes from the
 * disk. What was not written back yet stays: fsync(2) comes first.
 */
export function dropCached(fd: number): void {
  const result = syscall(NR.fadvise64, fd, 0, 0, FADVISE.POSIX_FADV_DONTNEED);
  check("posix_fadvise", result, `fd ${fd}, POSIX_FADV_DONTNEED`);
}
