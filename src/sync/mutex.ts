/**
 * A lock between threads with one preference: who calls `lockUrgent` goes before everybody who
 * calls `lock`, so that a thread which takes the lock over and over for bulk data cannot keep a
 * page request waiting for more than the piece of work under way.
 */
import { waitWhile } from "./park.ts";

const STATE = 0;
const URGENT = 1;
/** Who is parked for urgent callers to be done. */
const PARKED = 2;
const BYTES = 3 * Int32Array.BYTES_PER_ELEMENT;

const FREE = 0;
const HELD = 1;
/** Held, and somebody is parked: unlocking must notify. */
const CONTENDED = 2;

/** A bulk thread looks again this often in case a notification was lost to its own race. */
const YIELD_MS = 1;

/** Looks of `tryLock` at a lock that is held. */
const TRY_SPINS = 1000;

export class Mutex {
  /** Shared with other threads by message; each makes a Mutex of its own over it. */
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(BYTES)) {
    this.shared = shared;
    this.#words = new Int32Array(shared);
  }

  /** Takes the lock after every urgent caller that waits now. */
  lock(): void {
    for (;;) {
      const waiting = Atomics.load(this.#words, URGENT);
      if (waiting === 0) break;
      Atomics.add(this.#words, PARKED, 1);
      waitWhile(this.#words, URGENT, waiting, YIELD_MS);
      Atomics.sub(this.#words, PARKED, 1);
    }
    this.#acquire();
  }

  /** Takes the lock before every caller of `lock`. */
  lockUrgent(): void {
    Atomics.add(this.#words, URGENT, 1);
    this.#acquire();
    Atomics.sub(this.#words, URGENT, 1);
    // Seldom anybody: who parks from now on sees that it need not.
    if (Atomics.load(this.#words, PARKED) > 0) Atomics.notify(this.#words, URGENT);
  }

  /** Takes the lock if it is free, or is within a few microseconds. */
  tryLock(): boolean {
    for (let spins = 0; spins < TRY_SPINS; spins++) {
      const state = Atomics.load(this.#words, STATE);
      if (state !== FREE) continue;
      if (Atomics.compareExchange(this.#words, STATE, FREE, HELD) === FREE) return true;
    }
    return false;
  }

  /** Whether an urgent caller waits now. */
  get urgentWaits(): boolean {
    return Atomics.load(this.#words, URGENT) > 0;
  }

  unlock(): void {
    if (Atomics.exchange(this.#words, STATE, FREE) === CONTENDED) {
      Atomics.notify(this.#words, STATE, 1);
    }
  }

  #acquire(): void {
    if (Atomics.compareExchange(this.#words, STATE, FREE, HELD) === FREE) return;
    while (Atomics.exchange(this.#words, STATE, CONTENDED) !== FREE) {
      waitWhile(this.#words, STATE, CONTENDED, Infinity);
    }
  }
}
