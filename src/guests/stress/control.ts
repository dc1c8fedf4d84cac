/**
 * The commander's side of the control block: starts, pauses and stops the workers of a stress
 * guest, and reads what they did. Any thread may hold one, main too: waits are short, or as long
 * as the caller says. A worker acknowledges by writing back the very command word that it obeys,
 * so that a pause is never confused with an earlier one, however fast the commands come.
 */
import { waitWhile } from "../../sync/park.ts";
import { GENERATOR_WORDS, seedGenerator } from "./generator.ts";
import {
  COMMAND_COUNT,
  COMMAND_MASK,
  COMMAND_PAUSE,
  COMMAND_RUN,
  COMMAND_STOP,
  controlBytes,
  controlWorkers,
  COUNTER,
  HEADER,
  RECORD,
  recordFloat,
  recordWord,
  WORKER_EXITED,
  WORKER_NEW,
} from "./control-layout.ts";
import type { PageMismatch } from "./mismatch.ts";

/** What a worker, or all workers together, did in this process. */
export interface StressCounters {
  /** Operations since the guest was born, on all hosts; the others count on this host only. */
  operations: number;
  writes: number;
  reads: number;
  discards: number;
  populatedPages: number;
  /** Page accesses that took longer than 20 µs: the stalls that the guest notices. */
  stalls: number;
  stallTotalMs: number;
  longestAccessMs: number;
}

/** What the device state carries of one worker. */
export interface WorkerProgress {
  operations: number;
  /** GENERATOR_WORDS words. */
  generator: Uint32Array;
}

export class StressControl {
  readonly buffer: SharedArrayBuffer;
  readonly workers: number;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #floats: Float64Array;

  /** Looks at a control block that another thread may have made. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.workers = controlWorkers(buffer.byteLength);
    this.#words = new Int32Array(buffer);
    this.#floats = new Float64Array(buffer);
  }

  /** A control block for workers that have not begun; they will populate, then wait for resume. */
  static create(workers: number, seed: number): StressControl {
    const control = new StressControl(new SharedArrayBuffer(controlBytes(workers)));
    for (let worker = 0; worker < workers; worker++) {
      seedGenerator(control.#words, recordWord(worker) + RECORD.generator, seed, worker);
    }
    control.#words[HEADER.command] = COMMAND_PAUSE;
    return control;
  }

  /** A control block for workers that go on where others stopped; they wait for resume. */
  static continue(progress: readonly WorkerProgress[]): StressControl {
    const control = StressControl.create(progress.length, 0);
    control.goOnFrom(progress);
    return control;
  }

  /** Where the workers, none of which has run yet, are to go on: their number is that of before. */
  goOnFrom(progress: readonly WorkerProgress[]): void {
    for (const [worker, { operations, generator }] of progress.entries()) {
      const record = recordWord(worker);
      this.#words.set(generator, record + RECORD.generator);
      this.#words[record + RECORD.populated] = 1;
      this.#floats[recordFloat(worker) + COUNTER.operations] = operations;
    }
  }

  /**
   * Lets every worker finish its operation and park. True when all have, false when one had not
   * by the deadline (it may wait for a page): they are still to park then, until resume.
   */
  pause(timeoutMs: number): boolean {
    const command = this.#command(COMMAND_PAUSE);
    return this.#await(timeoutMs, (worker) => this.#obeys(worker, command));
  }

  /** Lets the workers run, unless they were told to stop. */
  resume(): void {
    this.#command(COMMAND_RUN);
  }

  /** Lets every worker return, for good. True when all have by the deadline. */
  stop(timeoutMs: number): boolean {
    this.#command(COMMAND_STOP);
    return this.#await(timeoutMs, (worker) => this.#gone(worker));
  }

  /** Waits until every worker has populated its pages; false at the deadline or if one failed. */
  awaitPopulated(timeoutMs: number): boolean {
    this.#await(timeoutMs, (worker) => this.#populated(worker) || this.#exited(worker));
    return this.populated;
  }

  /** Whether all pages hold their first versions: the guest counts as started. */
  get populated(): boolean {
    return this.#all((worker) => this.#populated(worker));
  }

  /** Whether every worker obeys the last command, which is no RUN: nobody touches a page. */
  get parked(): boolean {
    const command = Atomics.load(this.#words, HEADER.command);
    if ((command & COMMAND_MASK) === COMMAND_RUN) return false;
    return this.#all((worker) => this.#obeys(worker, command));
  }

  /** Whether every worker has returned. */
  get exited(): boolean {
    return this.#all((worker) => this.#exited(worker));
  }

  /** The counters of one worker. */
  counters(worker: number): StressCounters {
    const at = recordFloat(worker);
    return {
      operations: this.#floats[at + COUNTER.operations]!,
      writes: this.#floats[at + COUNTER.writes]!,
      reads: this.#floats[at + COUNTER.reads]!,
      discards: this.#floats[at + COUNTER.discards]!,
      populatedPages: this.#floats[at + COUNTER.populatedPages]!,
      stalls: this.#floats[at + COUNTER.stalls]!,
      stallTotalMs: this.#floats[at + COUNTER.stallTotalMs]!,
      longestAccessMs: this.#floats[at + COUNTER.longestAccessMs]!,
    };
  }

  /** The counters of all workers together; the longest access is the longest of any. */
  totals(): StressCounters {
    const totals = this.counters(0);
    for (let worker = 1; worker < this.workers; worker++) {
      const counters = this.counters(worker);
      totals.operations += counters.operations;
      totals.writes += counters.writes;
      totals.reads += counters.reads;
      totals.discards += counters.discards;
      totals.populatedPages += counters.populatedPages;
      totals.stalls += counters.stalls;
      totals.stallTotalMs += counters.stallTotalMs;
      totals.longestAccessMs = Math.max(totals.longestAccessMs, counters.longestAccessMs);
    }
    return totals;
  }

  /** Where each worker stands in its sequence of operations; exact while all are parked. */
  progress(): WorkerProgress[] {
    return Array.from({ length: this.workers }, (_, worker) => {
      const generator = recordWord(worker) + RECORD.generator;
      return {
        operations: this.#floats[recordFloat(worker) + COUNTER.operations]!,
        generator: Uint32Array.from(this.#words.subarray(generator, generator + GENERATOR_WORDS)),
      };
    });
  }

  /**
   * The guest's first instruction since the last resume and its last before the last pause, in ns
   * of the clock that the workers were given: the earliest begin and the latest end of any worker.
   * 0 where there was none yet.
   */
  runTimes(): { firstNs: number; lastNs: number } {
    let firstNs = Number.POSITIVE_INFINITY;
    let lastNs = 0;
    for (let worker = 0; worker < this.workers; worker++) {
      const at = recordFloat(worker);
      const since = this.#floats[at + COUNTER.runningSinceNs]!;
      if (since > 0) firstNs = Math.min(firstNs, since);
      lastNs = Math.max(lastNs, this.#floats[at + COUNTER.parkedAtNs]!);
    }
    return { firstNs: Number.isFinite(firstNs) ? firstNs : 0, lastNs };
  }

  /** How many workers found a mismatch; each stops at its first. */
  get mismatches(): number {
    return Atomics.load(this.#words, HEADER.mismatches);
  }

  /** The mismatch that was found first, if any was. */
  mismatch(): PageMismatch | undefined {
    if (Atomics.load(this.#words, HEADER.mismatchReady) === 0) return undefined;
    const word = (index: number): number => this.#words[index]! >>> 0;
    const mismatch: PageMismatch = {
      page: word(HEADER.page),
      version: word(HEADER.version),
      wordIndex: word(HEADER.wordIndex),
      expected: word(HEADER.expected),
      found: word(HEADER.found),
      zero: word(HEADER.zero) === 1,
    };
    if (word(HEADER.holdsKnown) === 1) {
      mismatch.holds = { page: word(HEADER.holdsPage), version: word(HEADER.holdsVersion) };
    }
    return mismatch;
  }

  /** Gives a new command and returns its command word. STOP stays, whatever comes after it. */
  #command(command: number): number {
    for (;;) {
      const old = Atomics.load(this.#words, HEADER.command);
      if ((old & COMMAND_MASK) === COMMAND_STOP) return old;
      const next = ((old & ~COMMAND_MASK) + COMMAND_COUNT) | 0 | command;
      if (Atomics.compareExchange(this.#words, HEADER.command, old, next) !== old) continue;
      Atomics.notify(this.#words, HEADER.command);
      return next;
    }
  }

  /** Waits on the event counter until all workers pass the test or time is up. */
  #await(timeoutMs: number, test: (worker: number) => boolean): boolean {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const events = Atomics.load(this.#words, HEADER.events);
      if (this.#all(test)) return true;
      const remaining = deadline - performance.now();
      if (remaining <= 0) return false;
      waitWhile(this.#words, HEADER.events, events, remaining);
    }
  }

  #all(test: (worker: number) => boolean): boolean {
    for (let worker = 0; worker < this.workers; worker++) if (!test(worker)) return false;
    return true;
  }

  #state(worker: number): number {
    return Atomics.load(this.#words, recordWord(worker) + RECORD.state);
  }

  #exited(worker: number): boolean {
    return this.#state(worker) === WORKER_EXITED;
  }

  /** Exited, or not begun: a worker that begins under a STOP returns at once. */
  #gone(worker: number): boolean {
    return this.#exited(worker) || this.#state(worker) === WORKER_NEW;
  }

  #populated(worker: number): boolean {
    return Atomics.load(this.#words, recordWord(worker) + RECORD.populated) === 1;
  }

  /** A worker obeys a command that it acknowledged, and one that has not begun or has returned. */
  #obeys(worker: number, command: number): boolean {
    if (this.#gone(worker)) return true;
    return Atomics.load(this.#words, recordWord(worker) + RECORD.acknowledged) === command;
  }
}
