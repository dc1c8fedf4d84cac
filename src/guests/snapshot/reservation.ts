/**
 * Room on the disk for what postcopy will write. Once a guest is taken over it is nowhere else, and
 * a full disk would lose it; so the room is taken while the guest can still go on at the source.
 */
import { statfsSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { reserveRange } from "../../../syscalls/fallocate.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { noSpace, storeError } from "./store-error.ts";

/** What a file system answers that has no fallocate(2) (ext2, NFS 3), or a sandbox. */
const UNSUPPORTED: ReadonlySet<number> = new Set([-ERRNO.EOPNOTSUPP, -ERRNO.ENOSYS, -ERRNO.EPERM]);

export class Reservation {
  readonly #directory: string;
  /** Bytes that could only be compared with what is free; see `reserve`. */
  #promised = 0;
  /** Bytes that were free when that became necessary. */
  #free: number | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Reserves room for [offset, offset + length) of a file, where `needed` bytes have none yet.
   * Where the file system cannot, all that is needed must fit into what was free at first: others
   * may take it meanwhile, but what never could have fitted is refused.
   * @throws PostcopyError NO_SPACE, CANNOT_STORE.
   */
  reserve(fd: number, name: string, offset: number, length: number, needed: number): void {
    const result = reserveRange(fd, offset, length);
    if (result === 0) return;
    if (!UNSUPPORTED.has(result)) throw storeError(this.#directory, name, "fallocate", -result);
    this.#promised += needed;
    this.#free ??= freeBytes(this.#directory);
    if (this.#promised <= this.#free) return;
    const details = `${this.#directory}, ${this.#free} bytes free, ${this.#promised} needed`;
    throw noSpace(this.#directory, new SyscallError("statfs", ERRNO.ENOSPC, details));
  }
}

/** Bytes that are free for us; Infinity on a file system that does not count (ramfs). */
function freeBytes(directory: string): number {
  const { blocks, bavail, bsize } = statfsSync(directory);
  return blocks === 0 ? Infinity : bavail * bsize;
}
