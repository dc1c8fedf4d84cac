/**
 * How much a source may discard in all. Each range is gone through here, page by page, and takes
 * sixteen bytes there: somebody who discards all of a large guest over and over would keep this end
 * busy with next to nothing.
 */
import type { ByteRange } from "./command.ts";
import { StreamError } from "../util/errors.ts";

/** A source discards a page once; old ones did so twice to those of huge pages. */
const TIMES_MAX = 4;

export class DiscardLimit {
  #left: number;

  /** For a guest of so many bytes. */
  constructor(guestBytes: number) {
    this.#left = TIMES_MAX * guestBytes;
  }

  /** Takes the ranges of a command. @throws StreamError UNEXPECTED. */
  take(ranges: readonly ByteRange[]): void {
    for (const { length } of ranges) this.#left -= length;
    if (this.#left >= 0) return;
    const what = `The source discards more than ${TIMES_MAX} times all that the guest has`;
    throw new StreamError("UNEXPECTED", what);
  }
}
