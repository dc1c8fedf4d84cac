/** Ctrl-C and its kin, counted: the first asks, the second insists. */
import type { Outcome } from "../report/report.ts";
import { errorRecord, EXIT } from "../util/errors.ts";

/** Signals that ask the program to end, and the exit code that says so. */
const SIGNALS = { SIGINT: EXIT.interrupt, SIGTERM: EXIT.terminate, SIGHUP: 129 } as const;
type SignalName = keyof typeof SIGNALS;

/** An operator who interrupts more often than this wants out, whatever it costs. */
export const INTERRUPTS_MAX = 2;

/**
 * Answers a signal that asks to end. `count` says how often it was asked since this answer was set,
 * from 1. Returns whether the program obeys: a first press may only be warned about. "abandoned": it
 * does, and the guest is not where it was before.
 */
export type InterruptAnswer = (count: number) => boolean | "abandoned";

export class Interrupts {
  /** Set by main: behind a command comes nothing but the end of the process. */
  static exitFollows = false;
  #answer: InterruptAnswer = () => this.exitNow();
  #count = 0;
  #obeyed = false;
  #abandoned = false;
  #exitCode = 0;
  readonly #listeners: [NodeJS.Signals, () => void][] = [];
  #switchover: (() => void) | undefined;
  #switchoverAsked = false;
  #recover: () => void = () => {};
  #settled = false;

  constructor() {
    for (const name of Object.keys(SIGNALS) as SignalName[]) {
      const listener = (): void => {
        this.#count++;
        if (!this.#settled) this.#exitCode = SIGNALS[name];
        const answer = this.#answer(this.#count);
        if (answer !== false) this.#obeyed = true;
        if (answer === "abandoned") this.#abandoned = true;
      };
      this.#listen(name, listener);
    }
    // From the start, as by default this signal ends a process, and the guest with it.
    this.#listen("SIGUSR1", () => {
      this.#switchoverAsked = true;
      this.#switchover?.();
    });
    this.#listen("SIGUSR2", () => this.#recover());
  }

  #listen(name: NodeJS.Signals, listener: () => void): void {
    process.on(name, listener);
    this.#listeners.push([name, listener]);
  }

  /** What SIGUSR1 does from now on. One that came before there was a migration counts for it. */
  onSwitchover(switchover: () => void): void {
    this.#switchover = switchover;
    if (this.#switchoverAsked) switchover();
  }

  /** What SIGUSR2 does from now on. */
  onRecover(recover: () => void): void {
    this.#recover = recover;
  }

  /** Sets what a signal does from now on, and begins to count anew. */
  onInterrupt(answer: InterruptAnswer): void {
    this.#answer = answer;
    this.#count = 0;
    this.#settled = false;
  }

  /**
   * How the command ends is decided, and what it still says is in keeping with `exitCode`: a signal
   * changes nothing any more. Whoever insists ends the process where it stands, with that code.
   */
  settle(exitCode: number): void {
    const insists = this.#settled ? this.#count : 0;
    this.onInterrupt((count) => {
      if (count > 1) process.exit(exitCode);
      return false;
    });
    // What is decided may be said more precisely: who has pressed since has pressed.
    this.#count = insists;
    this.#settled = true;
  }

  /** The same, of a command that fails: by `failure`, or because a signal was obeyed. */
  settleFailure(failure: Error): void {
    this.settle(this.#obeyed ? this.#exitCode : errorRecord(failure).exitCode);
  }

  /** From now on a signal ends the process where it stands. */
  exitOnInterrupt(): void {
    this.onInterrupt(() => this.exitNow());
  }

  /** Whether a signal came and was obeyed; one that was only warned about does not count. */
  get interrupted(): boolean {
    return this.#obeyed;
  }

  /** Whether one was obeyed where that leaves the guest elsewhere than it was before. */
  get abandoned(): boolean {
    return this.#abandoned;
  }

  /**
   * What a report says of a migration that ended with `failure`, or well. `isBack`: the guest is where it
   * was, as its destination gave it back while the signal was obeyed.
   */
  outcome(failure: Error | undefined, isBack = false): Outcome {
    if (failure === undefined) return "completed";
    if (this.#abandoned && !isBack) return "abandoned";
    return this.#obeyed ? "cancelled" : "failed";
  }

  /** The exit code of the last signal; 0 if there was none. */
  get exitCode(): number {
    return this.#exitCode;
  }

  /** Ends the process here and now, as the signal asked. */
  exitNow(): never {
    process.exit(this.#exitCode === 0 ? EXIT.interrupt : this.#exitCode);
  }

  [Symbol.dispose](): void {
    // Without a listener the signal would end the process, up to its very end.
    if (this.#settled && Interrupts.exitFollows) return;
    for (const [name, listener] of this.#listeners) process.off(name, listener);
  }
}
