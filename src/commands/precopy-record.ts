/** The rounds of a precopy, and the switchover that ended it: told when they come, and for the report. */
import type { Round, Switchover } from "../report/report.ts";
import type { EventSink } from "../report/sink.ts";

/** Precopy rounds that a report lists; a migration of more has long ceased to converge. */
const REPORT_ROUNDS_MAX = 1000;

export class PrecopyRecord {
  readonly rounds: Round[] = [];
  readonly #events: EventSink;
  #switchover: Switchover | null = null;

  constructor(events: EventSink) {
    this.#events = events;
  }

  /** What ended it; null as long as it goes on. */
  get switchover(): Switchover | null {
    return this.#switchover;
  }

  /** A round is over. */
  addRound(round: Round): void {
    if (this.rounds.length < REPORT_ROUNDS_MAX) this.rounds.push(round);
    this.#events.emit({ event: "round", ...round });
  }

  end(switchover: Switchover): void {
    this.#switchover = switchover;
    this.#events.emit({ event: "switchover", ...switchover });
  }
}
