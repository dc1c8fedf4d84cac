/**
 * Memory that several threads use at once, as plain data that crosses to them by message: the
 * engine's own, or a part of a file that this process has mapped, which may outlive it.
 */
import { viewMemory } from "../../syscalls/memory.ts";

/** Mapped memory: whoever mapped it keeps it so for as long as anybody may use it. */
export interface MappedBytes {
  /** Where it begins; a multiple of 8. */
  readonly address: number;
  readonly length: number;
}

export type SharedBytes = SharedArrayBuffer | MappedBytes;

/**
 * The memory itself. Atomics work on both, also between threads and processes: an engine that views
 * mapped memory uses the same instructions as for a SharedArrayBuffer. Nobody can wait on the former.
 */
export function attachBytes(shared: SharedBytes): ArrayBufferLike {
  return "address" in shared ? viewMemory(shared.address, shared.length) : shared;
}
