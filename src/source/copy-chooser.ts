/**
 * Gather pages from guest memory, or copy them first? Which is cheaper depends on the host, by a
 * factor of two either way, so it is measured: the first chunks take turns, then the cheaper way is
 * kept and the other one is tried now and then. What counts is CPU time of this thread, which a slow
 * link does not disturb.
 */
import { threadCpuNs } from "../../syscalls/process.ts";
import type { RamWriter } from "./ram-writer.ts";

/** Pages by which each way is judged at first. */
const TRIAL_PAGES = 1024;
/** Of so many chunks one goes the way that is not preferred. */
const RETRY_CHUNKS = 64;
/** Weight of the newest chunk in a running mean. */
const NEWEST_WEIGHT = 0.05;
/** A chunk counts for at most this many times the mean: interrupts are charged to whoever runs. */
const OUTLIER = 3;
/** The other way must be this much cheaper before it is preferred. */
const MARGIN = 0.85;

class Way {
  pages = 0;
  nsPerPage = 0;

  note(nsPerPage: number, pages: number): void {
    const first = this.pages < TRIAL_PAGES;
    const weight = first ? pages / (this.pages + pages) : NEWEST_WEIGHT;
    const sample = first ? nsPerPage : Math.min(nsPerPage, OUTLIER * this.nsPerPage);
    this.nsPerPage += weight * (sample - this.nsPerPage);
    this.pages += pages;
  }
}

export class CopyChooser {
  readonly #gather = new Way();
  readonly #copy = new Way();
  #preferCopy = true;
  #chunks = 0;
  #began = 0;

  /** Sets the writer's way for the next chunk; before the writer's `begin`. */
  before(writer: RamWriter): void {
    this.#chunks++;
    writer.copying = !writer.canGather || this.#choose();
    this.#began = threadCpuNs();
  }

  /** Notes what the chunk, which had `pages` pages with data, cost once it is written. */
  after(writer: RamWriter, pages: number): void {
    if (pages === 0) return;
    const way = writer.copying ? this.#copy : this.#gather;
    way.note((threadCpuNs() - this.#began) / pages, pages);
  }

  #choose(): boolean {
    if (this.#copy.pages < TRIAL_PAGES || this.#gather.pages < TRIAL_PAGES) {
      return this.#copy.pages <= this.#gather.pages;
    }
    const preferred = this.#preferCopy ? this.#copy : this.#gather;
    const other = this.#preferCopy ? this.#gather : this.#copy;
    if (other.nsPerPage < MARGIN * preferred.nsPerPage) this.#preferCopy = !this.#preferCopy;
    return this.#chunks % RETRY_CHUNKS === 0 ? !this.#preferCopy : this.#preferCopy;
  }
}
