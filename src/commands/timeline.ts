/**
 * When what happened, in nanoseconds of the monotonic clock: workers stamp their events, main
 * collects them here, and the report's durations are differences of them.
 */
import { monotonicNs } from "../../syscalls/process.ts";
import type { ObservedMoment } from "../report/observations.ts";

export class Timeline<Moment extends string> {
  /** When the command began its work. */
  readonly startNs: number;
  readonly startedAt: string;
  readonly #moments = new Map<Moment, number>();

  constructor(startNs = monotonicNs()) {
    this.startNs = startNs;
    this.startedAt = new Date(Date.now() - this.elapsedMs).toISOString();
  }

  /** Notes a moment, which is now unless it is said; the first note of a moment counts. */
  note(moment: Moment, atNs = monotonicNs()): void {
    if (!this.#moments.has(moment)) this.#moments.set(moment, atNs);
  }

  /** It was not that moment yet, as it turned out. */
  forget(...moments: readonly Moment[]): void {
    for (const moment of moments) this.#moments.delete(moment);
  }

  at(moment: Moment): number | undefined {
    return this.#moments.get(moment);
  }

  /** Milliseconds from one moment (or the start) to another; null while one is unknown. */
  ms(from: Moment | "start", to: Moment): number | null {
    const begin = from === "start" ? this.startNs : this.at(from);
    const end = this.at(to);
    if (begin === undefined || end === undefined) return null;
    return Math.max(0, (end - begin) / 1e6);
  }

  /** Those moments that have come, by the names given. */
  named(names: Partial<Record<Moment, string>>): ObservedMoment[] {
    return [...this.#moments].flatMap(([moment, atNs]) => {
      const name = names[moment];
      return name === undefined ? [] : [{ name, atNs }];
    });
  }

  /** Milliseconds since the start. */
  get elapsedMs(): number {
    return (monotonicNs() - this.startNs) / 1e6;
  }
}

/** Bytes a second; null when the duration is unknown or nothing. */
export function ratePerSecond(bytes: number, ms: number | null): number | null {
  return ms === null || ms <= 0 ? null : (bytes * 1000) / ms;
}
