/**
 * How guest memory moved over time, in at most SAMPLES_MAX samples whatever it takes: when there are
 * more, neighbours become one and the next ones are taken half as often.
 */
import type { KINDS } from "./moved-pages.ts";

/** Enough for a plot as wide as a screen; twice as many as are left after neighbours were joined. */
const SAMPLES_MAX = 600;
/** Between two samples, at first. */
const INTERVAL_MS = 10;

/** What happened between the end of the sample before and this one's. */
export interface Sample {
  /** Of the monotonic clock. */
  endNs: number;
  /** Target pages that moved: for each of KINDS, by address bin (`kind * bins + bin`). */
  pages: Uint32Array;
  /** Share of the guest's memory, from 0 to 1, that is at the destination; undefined if unknown. */
  resident: number | undefined;
}

/** How memory moved from `beginNs` on, which is shortly before the first page. */
export interface Movement {
  beginNs: number;
  /** Address bins; 1 where it is not known which pages moved. */
  bins: number;
  samples: readonly Sample[];
}

/** Collects samples of counts that only grow. */
export class MovementLog implements Movement {
  beginNs = 0;
  readonly bins: number;
  readonly samples: Sample[] = [];
  /** When the next sample is due after the last. */
  intervalMs = INTERVAL_MS;
  /** The counts at the last sample. */
  readonly #last: Uint32Array;

  /** `kinds` counts for each of `bins`. */
  constructor(bins: number, kinds: (typeof KINDS)["length"]) {
    this.bins = bins;
    this.#last = new Uint32Array(kinds * bins);
  }

  /**
   * Takes a sample of the counts, `kind * bins + bin`, as they stand at a time. Nothing is kept
   * before the first page: a destination may wait for its source for hours.
   */
  take(counts: Uint32Array, atNs: number, resident: number | undefined): void {
    const pages = new Uint32Array(this.#last.length);
    let moved = false;
    for (let index = 0; index < pages.length; index++) {
      const count = counts[index] ?? 0;
      const more = Math.max(0, count - (this.#last[index] ?? 0));
      this.#last[index] = count;
      pages[index] = more;
      if (more > 0) moved = true;
    }
    if (this.samples.length === 0 && !moved) {
      this.beginNs = atNs;
      return;
    }
    this.samples.push({ endNs: atNs, pages, resident });
    if (this.samples.length > SAMPLES_MAX) this.#halve();
  }

  #halve(): void {
    const { samples } = this;
    const halves: Sample[] = [];
    for (let index = 0; index < samples.length; index += 2) {
      const [first, second] = [samples[index], samples[index + 1]];
      if (first === undefined) continue;
      halves.push(second === undefined ? first : joined(first, second));
    }
    samples.splice(0, samples.length, ...halves);
    this.intervalMs *= 2;
  }
}

function joined(first: Sample, second: Sample): Sample {
  const pages = first.pages.slice();
  for (let index = 0; index < pages.length; index++) {
    pages[index] = (pages[index] ?? 0) + (second.pages[index] ?? 0);
  }
  return { ...second, pages };
}

/** Calls `take` whenever a sample of the log is due. Returns what ends that, with a last call. */
export function sampleRegularly(log: MovementLog, take: () => void): () => void {
  let timer: NodeJS.Timeout;
  const plan = (): void => {
    timer = setTimeout(() => {
      take();
      plan();
    }, log.intervalMs);
    timer.unref();
  };
  take();
  plan();
  return () => {
    clearTimeout(timer);
    take();
  };
}
