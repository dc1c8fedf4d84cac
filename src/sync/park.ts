/**
 * Spin, then park: how a thread waits for a word of shared memory to change. A parked thread costs
 * tens of microseconds to wake on a small virtual machine, so a short wait is spun through first;
 * a long one must not burn a core that the guest could use.
 *
 * On the main thread signals and timers stand still while it waits: only workers wait long.
 */

/** Loads before a thread parks: a few microseconds. With one core spinning only keeps others off. */
const SPIN_LOADS = navigator.hardwareConcurrency > 1 ? 1000 : 0;

/**
 * Waits while `words[index]` is `value`. Returns false when `timeoutMs` (Infinity: none) passed
 * with the word unchanged, and true otherwise; the caller looks at the word again.
 */
export function waitWhile(
  words: Int32Array<SharedArrayBuffer>,
  index: number,
  value: number,
  timeoutMs: number,
): boolean {
  for (let spins = 0; spins < SPIN_LOADS; spins++) {
    if (Atomics.load(words, index) !== value) return true;
  }
  return Atomics.wait(words, index, value, timeoutMs) !== "timed-out";
}
