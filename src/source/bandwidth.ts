/** A limit on the bytes a second that a thread writes: it sleeps off what it is ahead of time. */
import { waitWhile } from "../sync/park.ts";

/** Longest debt that is saved up: after an idle time no burst goes beyond this. */
const BURST_SECONDS = 0.1;
const NEVER_WOKEN = new Int32Array(new SharedArrayBuffer(4));

export class Bandwidth {
  readonly #bytesPerSecond: number;
  #paidUntil = 0;

  /** `bytesPerSecond` 0: no limit. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Notes `bytes` as sent and sleeps until the limit allows more. */
  spend(bytes: number): void {
    if (this.#bytesPerSecond === 0) return;
    const now = performance.now();
    const earliest = now - BURST_SECONDS * 1000;
    this.#paidUntil = Math.max(this.#paidUntil, earliest) + (bytes / this.#bytesPerSecond) * 1000;
    if (this.#paidUntil > now) waitWhile(NEVER_WOKEN, 0, 0, this.#paidUntil - now);
  }
}
