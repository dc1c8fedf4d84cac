/**
 * Precopy rounds of a QEMU, as looks at its monitor show them. Up to 10.0 QEMU looks for pages that
 * were written again (`dirty-sync-count`) when it has sent what it knew of, which ends a round. 11.1
 * does so every few milliseconds besides, so there a round is what was left at its begin, sent.
 */
import type { RoundResult } from "../../source/switchover.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";

/** One look at a QEMU in precopy. */
interface Look {
  ms: number;
  syncs: number;
  /** Bytes of guest memory that are left to send, as far as QEMU knows. */
  restBytes: number;
  /** With content, whatever they were encoded as, and of zeros. */
  pagesNormal: number;
  pagesZero: number;
  sentBytes: number;
  /** Below this rest QEMU looks for what was written again. */
  thresholdBytes: number;
}

function lookAt(reply: MigrateReply, ms: number, downtimeLimitMs: number): Look | undefined {
  const { ram } = reply;
  if (ram === undefined) return undefined;
  const encoded = (reply["xbzrle-cache"]?.pages ?? 0) + (reply.compression?.pages ?? 0);
  return {
    ms,
    syncs: ram["dirty-sync-count"],
    restBytes: ram.remaining,
    pagesNormal: ram.normal + encoded,
    pagesZero: ram.duplicate,
    sentBytes: ram.transferred,
    // Megabits a second are 125 bytes a millisecond.
    thresholdBytes: ram.mbps * 125 * downtimeLimitMs,
  };
}

/** Bytes of guest memory that were sent between two looks. */
function movedBytes(from: Look, to: Look): number {
  const pages = to.pagesNormal + to.pagesZero - from.pagesNormal - from.pagesZero;
  return pages * TARGET_PAGE_SIZE;
}

/** The begin of the first round, of which a part may have been sent at the first look. */
function atBegin(first: Look): Look {
  const nothing = { ...first, pagesNormal: 0, pagesZero: 0, sentBytes: 0 };
  return { ...nothing, restBytes: first.restBytes + movedBytes(nothing, first) };
}

export class PrecopyRounds {
  readonly #downtimeLimitMs: number;
  #ended = 0;
  #start: Look | undefined;
  #last: Look | undefined;
  #bytesPerMs = 0;

  /** `downtimeLimitMs`: what QEMU was told, which says when it looks at what was written again. */
  constructor(downtimeLimitMs: number) {
    this.#downtimeLimitMs = downtimeLimitMs;
  }

  /** The round that is under way, from 1; 0 before the first. */
  get current(): number {
    return this.#start === undefined ? 0 : this.#ended + 1;
  }

  /** Guest memory that was sent between the last two looks, zeros included, in bytes a ms. */
  get bytesPerMs(): number {
    return this.#bytesPerMs;
  }

  /** Takes an answer of query-migrate, got at `ms`; gives the round that has ended since the last. */
  take(reply: MigrateReply, ms: number): RoundResult | undefined {
    const now = lookAt(reply, ms, this.#downtimeLimitMs);
    if (now === undefined) return undefined;
    const last = this.#last ?? now;
    const start = (this.#start ??= atBegin(now));
    this.#last = now;
    this.#bytesPerMs = movedBytes(last, now) / Math.max(now.ms - last.ms, 1);
    if (now.syncs === last.syncs) return undefined;
    const wholeRest = movedBytes(start, now) >= start.restBytes;
    const threshold = Math.max(last.thresholdBytes, now.thresholdBytes);
    const endOfList = last.restBytes <= movedBytes(last, now) + threshold;
    if (!wholeRest && !endOfList) return undefined;
    this.#start = now;
    this.#ended++;
    return {
      round: this.#ended,
      pagesNormal: Math.max(0, now.pagesNormal - start.pagesNormal),
      pagesZero: Math.max(0, now.pagesZero - start.pagesZero),
      bytes: Math.max(0, now.sentBytes - start.sentBytes),
      dirtyPagesAfter: Math.ceil(now.restBytes / TARGET_PAGE_SIZE),
      durationMs: now.ms - start.ms,
    };
  }
}
