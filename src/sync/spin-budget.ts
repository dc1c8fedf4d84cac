/**
 * How long a thread may wait awake for what is most likely about to come. To be woken costs it tens of
 * microseconds on a small virtual machine, as much as the whole way of a page between two hosts; but who
 * spins keeps a processor from everybody else. So it spins for a moment only, no more than a share of a
 * processor in all, and less and less often where what it waits for does not come in time.
 */
import { availableParallelism } from "node:os";

/** Longest spin: an answer that takes longer has most of its way behind a network, or a queue. */
const SPIN_NS_MAX = 50_000;
/** What may be saved up: a guest that has not faulted for a while is served awake at first. */
const SAVED_NS_MAX = 1e6;
/** Most waits that are slept through between two spins, where spins come to nothing. */
const PAUSE_MAX = 64;
/** Of the time of all processors that this process may use, and of one: the lesser counts. */
const SHARE_OF_ALL = 1 / 8;
const SHARE_OF_ONE_MAX = 0.5;

/** Share of one processor that a thread may spin away on this host. */
export function spinShare(processors = availableParallelism()): number {
  if (processors < 2) return 0;
  return Math.min(SHARE_OF_ONE_MAX, processors * SHARE_OF_ALL);
}

/** One thread's budget. Times are of one clock, in nanoseconds. */
export class SpinBudget {
  readonly #share: number;
  #savedNs = 0;
  #seenAt = 0;
  #beganAt = 0;
  #spentNs = 0;
  /** Waits to sleep through, and how many it will be after the next spin that comes to nothing. */
  #pause = 0;
  #nextPause = 1;

  constructor(share = spinShare()) {
    this.#share = share;
  }

  /** Whether the wait that begins now may be awake; then `end` has to follow. */
  begin(now: number): boolean {
    this.#savedNs = Math.min(SAVED_NS_MAX, this.#savedNs + this.#share * (now - this.#seenAt));
    this.#seenAt = now;
    if (this.#savedNs < SPIN_NS_MAX) return false;
    if (this.#pause > 0) {
      this.#pause--;
      return false;
    }
    this.#beganAt = now;
    return true;
  }

  /** Whether it may go on. */
  mayGoOn(now: number): boolean {
    return now - this.#beganAt < SPIN_NS_MAX;
  }

  /** It is over; `came`: what was waited for has come. */
  end(now: number, came: boolean): void {
    const spent = now - this.#beganAt;
    this.#savedNs -= spent;
    this.#spentNs += spent;
    this.#pause = came ? 0 : this.#nextPause;
    this.#nextPause = came ? 1 : Math.min(PAUSE_MAX, 2 * this.#nextPause);
  }

  /** What was spun away since this was last asked. */
  takeSpent(): number {
    const spent = this.#spentNs;
    this.#spentNs = 0;
    return spent;
  }
}
