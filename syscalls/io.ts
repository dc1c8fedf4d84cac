/**
 * read(2), write(2) and their vector and positioned forms, on addresses. Results that are not
 * failures stay numbers: each function returns the byte count or a negative errno, and the caller
 * decides what EAGAIN or EPIPE means to it.
 */
import { ERRNO } from "./abi/errno.ts";
import { mapScratch, putU64 } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

const IOVEC_BYTES = 16;
const TWO_32 = 0x1_0000_0000;

/** IOV_MAX of the kernel (UIO_MAXIOV, linux/uio.h): most pieces of one gather write. */
export const IOVEC_COUNT_MAX = 1024;

/** read(2): bytes read, 0 at the end, or -errno. EINTR is retried. */
export function readInto(fd: number, address: number, length: number): number {
  for (;;) {
    const result = syscall(NR.read, fd, address, length);
    if (result !== -ERRNO.EINTR) return result;
  }
}

/** write(2): bytes written or -errno. EINTR is retried. */
export function writeFrom(fd: number, address: number, length: number): number {
  for (;;) {
    const result = syscall(NR.write, fd, address, length);
    if (result !== -ERRNO.EINTR) return result;
  }
}

/** pread(2) from a file offset: bytes read, 0 at the end, or -errno. EINTR is retried. */
export function readAt(fd: number, address: number, length: number, offset: number): number {
  for (;;) {
    const result = syscall(NR.pread64, fd, address, length, offset);
    if (result !== -ERRNO.EINTR) return result;
  }
}

/** pwrite(2) at a file offset: bytes written or -errno. EINTR is retried. */
export function writeAt(fd: number, address: number, length: number, offset: number): number {
  for (;;) {
    const result = syscall(NR.pwrite64, fd, address, length, offset);
    if (result !== -ERRNO.EINTR) return result;
  }
}

/**
 * An array of struct iovec for writev(2), preadv(2) and pwritev(2), filled and used by one thread.
 * After a call that was short the next one goes on from where the kernel stopped: `remaining` says how
 * much is left.
 */
export class GatherList {
  readonly #scratch: Scratch;
  readonly #words: Uint32Array;
  readonly #capacity: number;
  #first = 0;
  #count = 0;
  /** Bytes that are still to be written, or read. */
  remaining = 0;

  constructor(capacity: number) {
    if (capacity > IOVEC_COUNT_MAX) throw new RangeError("more pieces than writev(2) takes");
    this.#capacity = capacity;
    this.#scratch = mapScratch(capacity * IOVEC_BYTES);
    this.#words = new Uint32Array(this.#scratch.bytes.buffer);
  }

  /** Pieces that can still be added. */
  get room(): number {
    return this.#capacity - this.#count;
  }

  clear(): void {
    this.#first = 0;
    this.#count = 0;
    this.remaining = 0;
  }

  /** Adds [address, address + length), which the caller keeps unchanged until it is written. */
  add(address: number, length: number): void {
    // Beyond its end the array would swallow the piece without a word.
    if (this.#count === this.#capacity) throw new RangeError("the gather list is full");
    const at = this.#count * 4;
    this.#words[at] = address >>> 0;
    this.#words[at + 1] = Math.floor(address / TWO_32);
    this.#words[at + 2] = length;
    this.#words[at + 3] = 0;
    this.#count++;
    this.remaining += length;
  }

  /** One writev(2) of what remains: bytes written (the list moves on past them) or -errno. */
  write(fd: number): number {
    return this.#call(NR.writev, fd);
  }

  /** One pwritev(2) of what remains to a file offset: as `write`. */
  writeAt(fd: number, offset: number): number {
    return this.#call(NR.pwritev, fd, offset);
  }

  /** One preadv(2) from a file offset into what remains: bytes read, 0 at the end, or -errno. */
  readAt(fd: number, offset: number): number {
    return this.#call(NR.preadv, fd, offset);
  }

  /** On 64 bits the kernel takes a file offset as one argument, and looks at no upper half. */
  #call(number: number, fd: number, offset = 0): number {
    const address = this.#scratch.address + this.#first * IOVEC_BYTES;
    let result: number;
    do {
      result = syscall(number, fd, address, this.#count - this.#first, offset);
    } while (result === -ERRNO.EINTR);
    if (result > 0) this.#advance(result);
    return result;
  }

  #advance(done: number): void {
    this.remaining -= done;
    let left = done;
    while (left > 0) {
      const at = this.#first * 4;
      const length = this.#words[at + 2] ?? 0;
      if (left < length) {
        const base = (this.#words[at + 1] ?? 0) * TWO_32 + (this.#words[at] ?? 0) + left;
        putU64(this.#scratch.view, at * 4, base);
        this.#words[at + 2] = length - left;
        return;
      }
      left -= length;
      this.#first++;
    }
  }
}
