/** Which parts of a sparse file are data: lseek(2) with SEEK_DATA and SEEK_HOLE. */
import { ERRNO } from "./abi/errno.ts";
import { SEEK } from "./abi/file.ts";
import { check } from "./error.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Tells every part [start, end) of a file that is not a hole, in order. A file system that knows no
 * holes says that all of it is data. `length` is the file's size; the file offset is changed.
 * @throws SyscallError ESPIPE for what cannot be sought in.
 */
export function forEachExtent(
  fd: number,
  length: number,
  each: (start: number, end: number) => void,
): void {
  for (let at = 0; at < length;) {
    const start = syscall(NR.lseek, fd, at, SEEK.SEEK_DATA);
    // Only holes follow.
    if (start === -ERRNO.ENXIO) return;
    check("lseek", start, `fd ${fd}, SEEK_DATA from ${at}`);
    const end = check("lseek", syscall(NR.lseek, fd, start, SEEK.SEEK_HOLE), `fd ${fd}, SEEK_HOLE`);
    each(start, Math.min(end, length));
    at = end;
  }
}
