/** Ctrl-C and its kin, counted: the first asks, the second insists. */
import { EXIT } from "../util/errors.ts";

/** Signals that ask the program to end, and the exit code that says so. */
const SIGNALS = { SIGINT: EXIT.interrupt, SIGTERM: EXIT.terminate, SIGHUP: 129 } as const;
type SignalName = keyof typeof SIGNALS;

export class Interrupts {
  /** What the next signal does; it is given the number of signals so far, from 1. */
  handler: (count: number) => void = () => this.exitNow();
  #count = 0;
  #exitCode = 0;
  readonly #listeners: [NodeJS.Signals, () => void][] = [];
  #switchover: (() => void) | undefined;
  #switchoverAsked = false;

  constructor() {
    for (const name of Object.keys(SIGNALS) as SignalName[]) {
      const listener = (): void => {
        this.#count++;
        this.#exitCode = SIGNALS[name];
        this.handler(this.#count);
      };
      this.#listen(name, listener);
    }
    // From the start, as by default this signal ends a process, and the guest with it.
    this.#listen("SIGUSR1", () => {
      this.#switchoverAsked = true;
      this.#switchover?.();
    });
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

  /** Whether a signal came. */
  get interrupted(): boolean {
    return this.#count > 0;
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
    for (const [name, listener] of this.#listeners) process.off(name, listener);
  }
}
