/**
 * Which page versions of a running guest have changed since they were last sent: its device state
 * travels while it runs, and with the stop only what is new in it. Workers note each change behind
 * it, so that what it costs to find them does not depend on the size of the guest.
 */
import { PageBitmap } from "../../ram/bitmap.ts";
import type { StressSetup } from "./setup.ts";

/** Pages and their versions, one behind the other: views that hold until the next `take`. */
export interface VersionChanges {
  pages: Uint32Array;
  versions: Uint32Array;
}

export class SentVersions {
  /** Version by page, as it was last sent. */
  readonly sent: SharedArrayBuffer;
  readonly #sent: Uint32Array;
  readonly #now: Uint32Array;
  readonly #changed: PageBitmap;
  readonly #pages: Uint32Array;
  readonly #versions: Uint32Array;

  /** Begins with a copy of the versions, which workers may be changing: all of it counts as sent. */
  constructor({ versions, changed }: Pick<StressSetup, "versions" | "changed">) {
    this.#now = new Uint32Array(versions);
    this.#changed = new PageBitmap(this.#now.length, changed);
    this.#changed.clearRange(0, this.#changed.pages);
    this.sent = new SharedArrayBuffer(versions.byteLength);
    this.#sent = new Uint32Array(this.sent);
    this.#sent.set(this.#now);
    this.#pages = new Uint32Array(this.#now.length);
    this.#versions = new Uint32Array(this.#now.length);
  }

  /** What has changed since the last call; from now on it counts as sent. */
  take(): VersionChanges {
    const changed = this.#changed;
    let count = 0;
    for (let page = changed.nextSet(0); page >= 0; page = changed.nextSet(page + 1)) {
      // A worker that changes it once more notes it anew.
      changed.claim(page);
      const version = this.#now[page] ?? 0;
      this.#sent[page] = version;
      this.#pages[count] = page;
      this.#versions[count] = version;
      count++;
    }
    return { pages: this.#pages.subarray(0, count), versions: this.#versions.subarray(0, count) };
  }
}
