/** A limit on the bytes a second that a thread writes: it sleeps off what it is ahead of time. */

/** Longest debt that is saved up: after an idle time no burst goes beyond this. */
const BURST_SECONDS = 0.1;
/** How often a sleeper looks whether it must end. */
const LOOK_AGAIN_MS = 100;
const NEVER_WOKEN = new Int32Array(new SharedArrayBuffer(4));

export class Bandwidth {
  readonly #bytesPerSecond: number;
  #paidUntil = 0;

  /** `bytesPerSecond` 0: no limit. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /**
   * Notes `bytes` as sent and sleeps until the limit allows more, or until `mustEnd` says that
   * there is something better to do: under a low limit that could be minutes later.
   */
  spend(bytes: number, mustEnd: () => boolean): void {
    if (this.#bytesPerSecond === 0) return;
    const earliest = performance.now() - BURST_SECONDS * 1000;
    this.#paidUntil = Math.max(this.#paidUntil, earliest) + (bytes / this.#bytesPerSecond) * 1000;
    while (!mustEnd()) {
      const left = this.#paidUntil - performance.now();
      if (left <= 0) return;
      Atomics.wait(NEVER_WOKEN, 0, 0, Math.min(left, LOOK_AGAIN_MS));
    }
  }
}
