/** Page records counted: by kind, by block, and by pass over memory. */
import type { PageKinds, StreamAnalysis } from "../report/analysis.ts";
import type { WalkedPage } from "../stream/walk.ts";

/** Passes that are told apart; what comes behind counts in the last. QEMU makes some tens. */
const ROUNDS_MAX = 1000;

type Round = StreamAnalysis["rounds"][number];

export function noPages(): PageKinds {
  return { normal: 0, zero: 0, xbzrle: 0, compressed: 0 };
}

export function pagesOf({ normal, zero, xbzrle, compressed }: PageKinds): number {
  return normal + zero + xbzrle + compressed;
}

/**
 * A source goes through memory from its first block to its last, again and again, so that a page
 * that lies before the one that was sent last begins another round. That is as near as a stream
 * comes to the source's own rounds, which nothing in it marks. After the switch there are none: the
 * order is that of the guest's requests.
 */
export class Rounds {
  readonly list: Round[] = [];
  #current: Round | undefined;
  #block = 0;
  #offset = 0;

  /** Counts a record of a section; `isLast` is the END section, for which the guest stands. */
  add(page: WalkedPage, isLast: boolean): void {
    const { block, offset } = page;
    const back = block < this.#block || (block === this.#block && offset <= this.#offset);
    this.#block = block;
    this.#offset = offset;
    const phase = page.postcopy ? "postcopy" : isLast ? "stopped" : "precopy";
    let round = this.#current;
    if (round?.phase !== phase || (back && phase === "precopy" && this.list.length < ROUNDS_MAX)) {
      round = this.#begin(phase, page.at);
    }
    round.records[page.kind] += 1;
    round.bytes += page.dataAt + page.dataLength - page.at;
  }

  #begin(phase: Round["phase"], at: number): Round {
    const number = phase === "precopy" ? this.list.length + 1 : null;
    const round = { phase, round: number, at, records: noPages(), bytes: 0 };
    this.list.push(round);
    this.#current = round;
    return round;
  }
}
