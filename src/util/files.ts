/**
 * Files that somebody else has put there: what is no file is not waited for, as a pipe without a
 * writer would be, and what is longer than it can be is not read into memory.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";

/** Opens a regular file for reading. Throws what open(2) fails with, or that it is none. */
export function openRegular(path: string): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Error(`${path} is not a file`);
}

/** All of a regular file of at most `bytesMax` bytes. */
export function readRegular(path: string, bytesMax: number): Uint8Array<ArrayBuffer> {
  const fd = openRegular(path);
  try {
    const { size } = fstatSync(fd);
    if (size > bytesMax) throw new Error(`${path} has ${size} bytes, more than ${bytesMax}`);
    const bytes = new Uint8Array(size);
    let done = 0;
    while (done < size) {
      const got = readSync(fd, bytes, done, size - done, done);
      if (got === 0) break;
      done += got;
    }
    return bytes.slice(0, done);
  } finally {
    closeSync(fd);
  }
}
