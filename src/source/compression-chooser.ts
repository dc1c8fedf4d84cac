/**
 * When runs are compressed: where the link, or the limit set for it, is slower than compression. Its
 * rate is what goes through while this thread waits for it most of the time; what compression yields
 * is tried on a run. That it promises more is not believed for long: what then arrives, in pages, has
 * to be more than before, or the thread that would compress is itself what is slow.
 */

/** Least time that a rate is measured over, in milliseconds. */
const WINDOW_MS = 100;
/** Least bytes, so that what a socket takes without sending it is not all that is seen. */
const WINDOW_BYTES = 1024 * 1024;
/** Who waits for this much of the time is held up by the link. */
const WAITING_SHARE = 0.5;
/** Compression must promise this much more before it is tried ... */
const PROMISE = 1.2;
/** ... and bring this much more to be kept. */
const GAIN = 1.05;
/** So many windows in a row it must have been: in the first one, buffers and bursts are filled. */
const HELD_UP_WINDOWS = 2;
/** So many windows in a row must have been in vain: in the first one they are emptied. */
const VAIN_WINDOWS = 2;
/** Windows until it is tried again after a vain try, and until the link without it is looked at. */
const PATIENCE_WINDOWS = 16;

/** What the operator asked for. */
export type Compression = "auto" | "off" | "zstd";

/** What was sent in a chunk. */
export interface ChunkCost {
  /** Bytes that the link took. */
  bytes: number;
  /** Time from its beginning to that of the next one, and the part of it spent waiting, in ms. */
  ms: number;
  waitedMs: number;
}

/** What packing came to. */
export interface PackingCost {
  /** Bytes of the pages, and of what is sent for them: their frames, or they themselves. */
  before: number;
  after: number;
  /** Time that it took, in milliseconds. */
  ms: number;
}

export class CompressionChooser {
  /** Whether the next chunk's runs are compressed. */
  compressing: boolean;
  readonly #automatic: boolean;
  #bytes = 0;
  #ms = 0;
  #waitedMs = 0;
  /** Bytes a millisecond when last nothing was compressed. */
  #plainRate = 0;
  /** Milliseconds that compression took a byte when last some was compressed. */
  #packingMs = 0;
  /** Windows in a row in which the link held this thread up. */
  #heldUp = 0;
  /** Windows in a row in which compression brought nothing. */
  #vain = 0;
  /** Windows since the way was changed, or since it was found to be in vain. */
  #windows = PATIENCE_WINDOWS;

  constructor(asked: Compression) {
    this.#automatic = asked === "auto";
    this.compressing = asked === "zstd";
  }

  /** Notes a chunk; whether a window is over and `decide` is to be asked. */
  note({ bytes, ms, waitedMs }: ChunkCost): boolean {
    if (!this.#automatic) return false;
    this.#bytes += bytes;
    this.#ms += ms;
    this.#waitedMs += waitedMs;
    return this.#ms >= WINDOW_MS && this.#bytes >= WINDOW_BYTES;
  }

  /** Bytes that the link takes as they are while so many are compressed. */
  takenWhile(bytes: number): number {
    return bytes * this.#packingMs * this.#plainRate;
  }

  /**
   * Decides for the next window. `packing` is of all of this one, or of a sample if it was plain: no
   * page was compressed in it, also where some might have been.
   */
  decide(packing: PackingCost, plain: boolean): void {
    if (packing.before > 0) {
      this.#packingMs = packing.ms / packing.before;
      this.#windows++;
      if (plain) this.#consider(packing);
      else this.#judge(packing);
    }
    this.#bytes = 0;
    this.#ms = 0;
    this.#waitedMs = 0;
  }

  #consider({ before, after, ms }: PackingCost): void {
    this.#plainRate = this.#bytes / this.#ms;
    const promised = Math.min(before / ms, this.#plainRate * (before / after));
    this.#heldUp = this.#waitedMs > WAITING_SHARE * this.#ms ? this.#heldUp + 1 : 0;
    if (this.#heldUp < HELD_UP_WINDOWS || promised < PROMISE * this.#plainRate) return;
    if (this.#windows < PATIENCE_WINDOWS) return;
    this.compressing = true;
    this.#vain = 0;
    this.#windows = 0;
  }

  #judge({ before, after }: PackingCost): void {
    // What was not packed, such as zeros, went as it would have gone.
    const rate = (this.#bytes + before - after) / this.#ms;
    this.#vain = rate < GAIN * this.#plainRate ? this.#vain + 1 : 0;
    const inVain = this.#vain >= VAIN_WINDOWS;
    const stale = this.#windows >= PATIENCE_WINDOWS;
    if (!inVain && !stale) return;
    this.compressing = false;
    // A look at the link costs a window; a vain try is not repeated at once.
    this.#windows = inVain ? 0 : PATIENCE_WINDOWS;
  }
}
