/**
 * fallocate(2): room for a file before it is written, and holes in it. The results are 0 or a
 * negative errno, and the caller decides what ENOSPC or EOPNOTSUPP means to it.
 */
import { ERRNO } from "./abi/errno.ts";
import { FALLOC } from "./abi/file.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Reserves room on the disk for [offset, offset + length) of a file: what is written there later
 * does not fail for want of space. What the file reads as and its size stay.
 */
export function reserveRange(fd: number, offset: number, length: number): number {
  return fallocate(fd, FALLOC.FALLOC_FL_KEEP_SIZE, offset, length);
}

/**
 * Turns [offset, offset + length) of a file into a hole: it reads as zeros and takes no room. Only
 * within the file's size; ext4 leaves what is reserved behind it as it is.
 */
export function punchHole(fd: number, offset: number, length: number): number {
  return fallocate(fd, FALLOC.FALLOC_FL_PUNCH_HOLE | FALLOC.FALLOC_FL_KEEP_SIZE, offset, length);
}

/** A long one can be interrupted, and is then begun anew: what it has done already is quick. */
function fallocate(fd: number, mode: number, offset: number, length: number): number {
  for (;;) {
    const result = syscall(NR.fallocate, fd, mode, offset, length);
    if (result !== -ERRNO.EINTR) return result;
  }
}
