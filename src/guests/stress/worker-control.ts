/** The worker's side of the control block: obeys commands, counts, and reports a mismatch. */
import {
  COMMAND_MASK,
  COMMAND_PAUSE,
  COMMAND_RUN,
  COMMAND_STOP,
  COUNTER,
  HEADER,
  RECORD,
  recordFloat,
  recordWord,
  WORKER_EXITED,
  WORKER_STARTED,
} from "./control-layout.ts";
import type { PageMismatch } from "./mismatch.ts";

/** An access that takes longer than this counts as a stall: twenty times a page in memory. */
const STALL_MS = 0.02;

/** Nanoseconds of a clock that all threads and processes of the host share (CLOCK_MONOTONIC). */
export type Clock = () => number;

export class WorkerControl {
  /** The generator's state lies at words[generator, generator + GENERATOR_WORDS). */
  readonly words: Int32Array;
  readonly generator: number;
  readonly #floats: Float64Array;
  readonly #record: number;
  readonly #counters: number;
  readonly #clock: Clock;
  /** The command word that the worker obeys; none at first, as no command word is -1. */
  #obeyed = -1;
  #running = false;

  constructor(buffer: SharedArrayBuffer, worker: number, clock: Clock) {
    this.words = new Int32Array(buffer);
    this.#floats = new Float64Array(buffer);
    this.#record = recordWord(worker);
    this.#counters = recordFloat(worker);
    this.generator = this.#record + RECORD.generator;
    this.#clock = clock;
  }

  /** Says that the worker has begun. Must come before it first looks at the command. */
  start(): void {
    Atomics.store(this.words, this.#record + RECORD.state, WORKER_STARTED);
  }

  /** Says that the worker touches no page any more. */
  exit(): void {
    this.#cease();
    Atomics.store(this.words, this.#record + RECORD.state, WORKER_EXITED);
    this.#announce();
  }

  /** Whether the worker was told to stop. */
  get stopped(): boolean {
    return (Atomics.load(this.words, HEADER.command) & COMMAND_MASK) === COMMAND_STOP;
  }

  /** Asked before every operation: parks while the guest is paused, and is false on STOP. */
  mayRun(): boolean {
    const command = Atomics.load(this.words, HEADER.command);
    if (command === this.#obeyed) return true;
    return this.#obey(command);
  }

  /** Acknowledges a new command, and parks until it is no PAUSE. */
  #obey(first: number): boolean {
    let command = first;
    this.#cease();
    while ((command & COMMAND_MASK) === COMMAND_PAUSE) {
      Atomics.store(this.words, this.#record + RECORD.acknowledged, command);
      this.#announce();
      Atomics.wait(this.words, HEADER.command, command);
      command = Atomics.load(this.words, HEADER.command);
    }
    if ((command & COMMAND_MASK) !== COMMAND_RUN) return false;
    this.#obeyed = command;
    this.#running = true;
    this.#floats[this.#counters + COUNTER.runningSinceNs] = this.#clock();
    return true;
  }

  /** Notes when the worker touched its last page, once for each time that it ran. */
  #cease(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#floats[this.#counters + COUNTER.parkedAtNs] = this.#clock();
  }

  /** Waits up to `ms`, less when a command comes. */
  idle(ms: number): void {
    Atomics.wait(this.words, HEADER.command, this.#obeyed, ms);
  }

  /** Adds to one of the worker's counters (COUNTER). */
  count(counter: number, amount: number): void {
    const at = this.#counters + counter;
    this.#floats[at] = this.#floats[at]! + amount;
  }

  /** Notes how long an access to a page took. */
  countAccess(ms: number): void {
    const longest = this.#counters + COUNTER.longestAccessMs;
    if (ms > this.#floats[longest]!) this.#floats[longest] = ms;
    if (ms <= STALL_MS) return;
    this.count(COUNTER.stalls, 1);
    this.count(COUNTER.stallTotalMs, ms);
  }

  /** Whether the worker's pages hold their first versions. */
  get populated(): boolean {
    return Atomics.load(this.words, this.#record + RECORD.populated) === 1;
  }

  /** Says that they do. */
  setPopulated(): void {
    Atomics.store(this.words, this.#record + RECORD.populated, 1);
    this.#announce();
  }

  /** Keeps the mismatch if it is the guest's first, and counts it. */
  reportMismatch(mismatch: PageMismatch): void {
    const { words } = this;
    if (Atomics.add(words, HEADER.mismatches, 1) > 0) return;
    words[HEADER.page] = mismatch.page;
    words[HEADER.version] = mismatch.version;
    words[HEADER.wordIndex] = mismatch.wordIndex;
    words[HEADER.expected] = mismatch.expected;
    words[HEADER.found] = mismatch.found;
    words[HEADER.zero] = mismatch.zero ? 1 : 0;
    if (mismatch.holds !== undefined) {
      words[HEADER.holdsKnown] = 1;
      words[HEADER.holdsPage] = mismatch.holds.page;
      words[HEADER.holdsVersion] = mismatch.holds.version;
    }
    Atomics.store(words, HEADER.mismatchReady, 1);
  }

  /** Wakes whoever waits for the workers to do something. */
  #announce(): void {
    Atomics.add(this.words, HEADER.events, 1);
    Atomics.notify(this.words, HEADER.events);
  }
}
