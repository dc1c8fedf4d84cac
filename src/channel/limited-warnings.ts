/**
 * Warnings that anybody can cause as often as he likes, by connecting: each is told, up to so many a
 * minute; of the others only their number.
 */

/** Told of connections that are turned away: where nothing fails but somebody should know. */
export type Warn = (message: string) => void;

const WARNINGS_PER_MINUTE_MAX = 20;
const MINUTE_MS = 60_000;

export class LimitedWarnings {
  readonly #warn: Warn;
  readonly #now: () => number;
  /** When the minute began, how many were told in it, and how many were not. */
  #since = -Infinity;
  #told = 0;
  #untold = 0;

  /** `now` is a clock in milliseconds. */
  constructor(warn: Warn, now: () => number = () => performance.now()) {
    this.#warn = warn;
    this.#now = now;
  }

  /** Tells it, or counts it. */
  say(message: string): void {
    const now = this.#now();
    if (now - this.#since >= MINUTE_MS) {
      if (this.#untold > 0) this.#warn(`${this.#untold} more such warnings were not shown`);
      this.#since = now;
      this.#told = 0;
      this.#untold = 0;
    }
    if (this.#told === WARNINGS_PER_MINUTE_MAX) {
      this.#untold++;
      return;
    }
    this.#told++;
    const isLast = this.#told === WARNINGS_PER_MINUTE_MAX;
    this.#warn(isLast ? `${message} (more within a minute are only counted)` : message);
  }
}
