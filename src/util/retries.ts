/**
 * Tries again with growing pauses, until the operator's patience is over: what a source does whose
 * link broke after the switchover.
 *
 *     const retries = new Retries(options.recoverTimeout);
 *     while (broken(result) && (await retries.next())) result = await attempt();
 */

const PAUSE_MS = 100;
const PAUSE_GROWTH = 2;
const PAUSE_MS_MAX = 5000;

export class Retries {
  readonly #deadline: number;
  #pauseMs = PAUSE_MS;
  #ended = false;
  #wake: () => void = () => {};

  /** There are tries for `timeoutMs`, counted from now. */
  constructor(timeoutMs: number) {
    this.#deadline = performance.now() + timeoutMs;
  }

  /** Waits for the time of the next try; false when there is none. */
  async next(): Promise<boolean> {
    if (this.over) return false;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = setTimeout(resolve, this.#pauseMs);
    this.#pauseMs = Math.min(this.#pauseMs * PAUSE_GROWTH, PAUSE_MS_MAX);
    await promise;
    clearTimeout(timer);
    return !this.over;
  }

  /** Whether patience is over. */
  get over(): boolean {
    return this.#ended || performance.now() >= this.#deadline;
  }

  /** Has the next try come at once. */
  now(): void {
    this.#pauseMs = PAUSE_MS;
    this.#wake();
  }

  /** There are no more tries. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }
}
