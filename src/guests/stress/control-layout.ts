/**
 * The shared control block of a stress guest: one SharedArrayBuffer through which any thread
 * commands the workers and reads what they did. A header, then one record a worker, each in cache
 * lines of its own; only the worker writes its record once it runs.
 */
import { WORKERS_MAX } from "./parameters.ts";

/** The command word holds a command in its low two bits and counts commands above them. */
export const COMMAND_RUN = 0;
export const COMMAND_PAUSE = 1;
export const COMMAND_STOP = 2;
export const COMMAND_MASK = 3;
/** Added to the command word for each command, so that no acknowledgement is an old one's. */
export const COMMAND_COUNT = 4;

/** The worker's thread has not begun: it obeys, as it looks at the command before anything else. */
export const WORKER_NEW = 0;
export const WORKER_STARTED = 1;
/** The worker has returned: stopped, failed, or found a mismatch. */
export const WORKER_EXITED = 2;

/** 32-bit words of the header. */
export const HEADER = {
  command: 0,
  /** Counts acknowledgements and other changes that a commander may wait for. */
  events: 1,
  /** Mismatches found; the first one's finder writes it below and then sets mismatchReady. */
  mismatches: 2,
  mismatchReady: 3,
  page: 4,
  version: 5,
  wordIndex: 6,
  expected: 7,
  found: 8,
  zero: 9,
  holdsKnown: 10,
  holdsPage: 11,
  holdsVersion: 12,
} as const;

/** 32-bit words of a worker's record. */
export const RECORD = {
  /** The command word that the worker obeys. */
  acknowledged: 0,
  state: 1,
  /** Whether the worker's pages hold their first versions. */
  populated: 2,
  /** GENERATOR_WORDS words. */
  generator: 4,
} as const;

/** 64-bit floats of a worker's record, behind its 32-bit words. */
export const COUNTER = {
  operations: 4,
  writes: 5,
  reads: 6,
  discards: 7,
  populatedPages: 8,
  /** Accesses that took longer than STALL_MS and their sum in ms; the longest access of all. */
  stalls: 9,
  stallTotalMs: 10,
  longestAccessMs: 11,
  /** The injected clock, in ns, when the worker last began to run and last ceased to. */
  runningSinceNs: 12,
  parkedAtNs: 13,
} as const;

const HEADER_BYTES = 128;
/** A multiple of two cache lines, as processors fetch lines in pairs. */
const RECORD_BYTES = 128;

/** Bytes of the control block of a guest of `workers` workers. */
export function controlBytes(workers: number): number {
  if (!Number.isInteger(workers) || workers < 1 || workers > WORKERS_MAX) {
    throw new RangeError(`a control block for ${workers} workers`);
  }
  return HEADER_BYTES + workers * RECORD_BYTES;
}

/** Workers of a control block of `bytes` bytes. */
export function controlWorkers(bytes: number): number {
  return (bytes - HEADER_BYTES) / RECORD_BYTES;
}

/** Index of the first 32-bit word of a worker's record. */
export function recordWord(worker: number): number {
  return (HEADER_BYTES + worker * RECORD_BYTES) / 4;
}

/** Index of the first 64-bit float of a worker's record. */
export function recordFloat(worker: number): number {
  return (HEADER_BYTES + worker * RECORD_BYTES) / 8;
}
