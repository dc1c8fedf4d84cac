/**
 * System calls with nothing in between: numbers in, result or negative errno out.
 *
 * Bun's FFI has no errno, and another call may run between a libc call and the reading of its
 * errno. So the `syscall` instruction is executed by a function of our own (stub.ts); where that
 * is forbidden, libc's syscall(2) serves instead (libc.ts).
 */
import { toArrayBuffer } from "bun:ffi";
import { openLibc } from "./libc.ts";
import { makeStub } from "./stub.ts";

export { NR } from "./abi/numbers.ts";

const libc = openLibc();
const stub = makeStub(libc);
let call = stub?.call ?? libc;

/**
 * One system call. Arguments are integers or addresses, all safe integers; the result is what the
 * kernel returned, -4095..-1 meaning an errno. FFI turns NaN and undefined into 0 without a word,
 * so callers pass numbers that their own types guarantee.
 */
export function syscall(number: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number {
  return call(number, a, b, c, d, e, f);
}

/** Gives back the code of this thread's stub; libc serves what calls are still to come. */
export function unmapStub(): void {
  if (call === libc) return;
  call = libc;
  stub?.unmap();
}

/**
 * The memory [address, address + length) as an ArrayBuffer, without a copy and without ownership.
 * At most VIEW_BYTES_MAX long. The caller keeps the mapping alive for as long as the buffer is
 * used.
 */
export function bufferAt(address: number, length: number): ArrayBuffer {
  if (length > VIEW_BYTES_MAX) throw new RangeError(`a view of ${length} bytes is too long`);
  // SAFETY: callers in this folder pass mappings they own; others get addresses only from those.
  return toArrayBuffer(address, 0, length);
}

/** Longest view that `bufferAt` makes; the engine could make one of 2^32 bytes. */
export const VIEW_BYTES_MAX = 1 << 30;
