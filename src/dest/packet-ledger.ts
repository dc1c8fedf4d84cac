/**
 * Which packets of a migration's multifd channels have been read. The source numbers them over all
 * channels, from 0: so a packet that is missing shows as a gap, also one of a channel that nobody
 * has heard of yet, and one that somebody else sent shows as a number that comes twice.
 */
import { StreamError } from "../util/errors.ts";

/** How far one channel may be ahead of another, in packets; they hold 512 KiB each. */
const AHEAD_MAX = 65_536;

export class PacketLedger {
  /** All packets before this one have been read. */
  #next = 0;
  /** Packets behind it that have been read. */
  readonly #ahead = new Set<number>();

  /** A packet was read. @throws StreamError when it was read before, or is absurdly far ahead. */
  note(number: number): void {
    if (number < this.#next || this.#ahead.has(number)) {
      throw new StreamError("BAD_VALUE", `The multifd packet ${number} came twice`);
    }
    if (number > this.#next + AHEAD_MAX) {
      const what = `The multifd packet ${number} came while ${this.#next} is awaited`;
      throw new StreamError("BAD_VALUE", what);
    }
    this.#ahead.add(number);
    while (this.#ahead.delete(this.#next)) this.#next++;
  }

  /** Whether no packet is missing before any that has been read. */
  get whole(): boolean {
    return this.#ahead.size === 0;
  }
}
