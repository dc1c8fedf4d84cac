/**
 * The scheduling of a thread for which a guest waits: before all others in real time where the host
 * allows it, else favoured by its nice value, else as usual. On a host whose processors are busy with
 * the very migration, a thread that is woken as one of many waits for milliseconds.
 *
 * Real time is for threads that sleep most of the time. One that no longer does, as somebody floods
 * it, would take a processor from everybody else, so it goes back to being merely favoured, for good.
 */
import { monotonicNs, threadCpuNs } from "../../syscalls/process.ts";
import { setThreadRealTime, setThreadUsual } from "../../syscalls/scheduling.ts";

/** How a thread is scheduled, from the least to the most favoured; shared as an index. */
export const FAVOURS = ["usual", "nice", "real-time"] as const;
export type FavourKind = (typeof FAVOURS)[number];

/** The least there is: it is before everything usual, and behind what else is in real time. */
const REAL_TIME_PRIORITY = 1;
const NICE = -15;
/** Over at least this time ... */
const WINDOW_NS = 200e6;
/** ... a thread in real time may take up at most this share of a processor. */
const SHARE_MAX = 0.9;

export class Favour {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #index: number;
  #kind: FavourKind;
  #since = 0;
  #cpuSince = 0;

  /** Favours the calling thread in the usual class if it may, and keeps how in `words[index]`. */
  constructor(words: Int32Array<SharedArrayBuffer>, index: number) {
    this.#words = words;
    this.#index = index;
    this.#kind = orNice();
    this.#note();
  }

  /** Puts the calling thread before all others, where the host allows it; to be called once. */
  beFirst(): void {
    if (!setThreadRealTime(REAL_TIME_PRIORITY)) return;
    this.#kind = "real-time";
    this.#begin();
    this.#note();
  }

  /**
   * To be called in each turn of the thread's loop, whether it has waited in it or not, and within one
   * that others can make as long as they like.
   */
  turn(): void {
    if (this.#kind !== "real-time") return;
    const elapsed = monotonicNs() - this.#since;
    if (elapsed < WINDOW_NS) return;
    if (threadCpuNs() - this.#cpuSince > SHARE_MAX * elapsed) {
      this.#kind = orNice();
      this.#note();
    }
    this.#begin();
  }

  /**
   * What the thread has spun away by its own choice is no sign that it is flooded, nor that it is not: it
   * counts neither as work nor as time. Else one that is flooded and spins kept a processor for ever.
   */
  exempt(ns: number): void {
    this.#cpuSince += ns;
    this.#since += ns;
  }

  /**
   * Lends real time to a thread that holds a lock which this one waits for, until the next
   * `takeBack`: one that was put off the processor with the lock held would be put on again after
   * everybody else, and this one after it. Does nothing where this one has none to lend.
   */
  lend(thread: number): void {
    if (this.#kind === "real-time") setThreadRealTime(REAL_TIME_PRIORITY, thread);
  }

  /** Puts a thread that was lent real time back where it was. */
  takeBack(thread: number, nice: number): void {
    if (this.#kind === "real-time") setThreadUsual(nice, thread);
  }

  #begin(): void {
    this.#since = monotonicNs();
    this.#cpuSince = threadCpuNs();
  }

  #note(): void {
    Atomics.store(this.#words, this.#index, FAVOURS.indexOf(this.#kind));
  }
}

/** From real time back to the usual class as well. */
function orNice(): FavourKind {
  if (setThreadUsual(NICE)) return "nice";
  setThreadUsual(0);
  return "usual";
}

/** How a thread is scheduled that may not have begun yet, as `words[index]` says. */
export function favourOf(words: Int32Array<SharedArrayBuffer>, index: number): FavourKind {
  return FAVOURS[Atomics.load(words, index)] ?? "usual";
}
