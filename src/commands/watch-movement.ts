/** Watches how guest memory moves, where a page is to show it; elsewhere nothing of it is done. */
import { monotonicNs } from "../../syscalls/process.ts";
import { createMovedPages, KINDS, MOVED_BINS } from "../report/moved-pages.ts";
import { MovementLog, sampleRegularly } from "../report/movement.ts";
import type { Movement } from "../report/movement.ts";

export class MovementWatch {
  /** For the threads that count; undefined where nobody wants to see it. */
  readonly shared: SharedArrayBuffer | undefined;
  readonly #log: MovementLog | undefined;
  #stop: (() => void) | undefined;

  /** `bins` is 1 where nobody knows which pages move. */
  constructor(wanted: boolean, bins = MOVED_BINS) {
    if (!wanted) return;
    this.shared = createMovedPages(bins);
    this.#log = new MovementLog(bins, KINDS.length);
  }

  /**
   * Samples until `stop`. `resident` is the share of the memory that is at the destination; `read`
   * brings the counts up to date where no thread does.
   */
  start(resident: () => number | undefined, read?: (counts: Uint32Array) => void): void {
    const [shared, log] = [this.shared, this.#log];
    if (shared === undefined || log === undefined) return;
    const counts = new Uint32Array(shared);
    this.#stop = sampleRegularly(log, () => {
      read?.(counts);
      log.take(counts, monotonicNs(), resident());
    });
  }

  /** Takes the last sample. */
  stop(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  get movement(): Movement | undefined {
    return this.#log;
  }
}
