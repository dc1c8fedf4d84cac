/**
 * A cursor over bytes that arrive in pieces: the one way all codecs read. It does no I/O itself: a
 * channel hands it a `refill` function that blocks until more bytes are there, a test or a package
 * hands it whole bytes and none.
 *
 * Invariant: 0 <= pos <= end <= bytes.length; bytes[pos, end) are read from the peer and unused.
 */
import { StreamError } from "../util/errors.ts";
import { refuse } from "./refuse.ts";

/** Blocks until at least `least` more bytes than now lie in [pos, end); throws when none can come. */
export type Refill = (reader: StreamReader, least: number) => void;

/** What the source of the bytes can do beside bringing the next ones. */
export interface ReaderAbilities {
  /** `refill` brings the bytes at the offset `base + end`: bytes that nobody wants are left out. */
  seeks?: boolean;
  /** Whether nothing comes behind [pos, end); may read on to find out. */
  atEnd?: (reader: StreamReader) => boolean;
}

const TWO_32 = 0x1_0000_0000;

/**
 * The bytes [at, at + length) as a string with one character (0 to 255) a byte. Not a TextDecoder:
 * what the web calls "latin1" maps 0x80 to 0x9f to other characters, which could not be sent back.
 */
export function byteString(bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString("latin1");
}

export class StreamReader {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Next unread byte. */
  pos = 0;
  /** One past the last byte that has arrived. */
  end: number;
  /** Bytes of the stream that were before bytes[0]: `base + pos` is the offset in the stream. */
  base = 0;
  readonly #refill: Refill | undefined;
  readonly #abilities: ReaderAbilities;

  /** Reads `bytes[0, end)`, and more through `refill` if it is given. */
  constructor(bytes: Uint8Array, end: number, refill?: Refill, abilities: ReaderAbilities = {}) {
    this.bytes = bytes;
    this.#abilities = abilities;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.end = end;
    this.#refill = refill;
  }

  /** Bytes that are there and unread. */
  get available(): number {
    return this.end - this.pos;
  }

  /** Offset in the stream of the next unread byte. */
  get offset(): number {
    return this.base + this.pos;
  }

  /**
   * Makes sure that `count` bytes can be read from [pos, end). The refill may move the unread bytes
   * within `bytes`, so positions taken before the call are stale after it. A count above
   * bytes.length can never be met and is a programmer's error.
   */
  ensure(count: number): void {
    const missing = count - (this.end - this.pos);
    if (missing <= 0) return;
    if (this.#refill === undefined) {
      const where = `at byte ${this.base + this.end} of the stream`;
      throw new StreamError("TRUNCATED", `The data ends ${missing} bytes too early (${where})`);
    }
    if (count > this.bytes.length) {
      throw new RangeError(`${count} bytes do not fit a buffer of ${this.bytes.length}`);
    }
    this.#refill(this, missing);
  }

  /** Whether all bytes are read and no more come; only for sources that can tell. */
  get ended(): boolean {
    if (this.pos < this.end) return false;
    if (this.#refill === undefined) return true;
    if (this.#abilities.atEnd === undefined) throw new Error("this reader does not know its end");
    return this.#abilities.atEnd(this);
  }

  /** Leaves out `count` bytes, without reading them where the source can seek. */
  skip(count: number): void {
    let rest = count;
    while (rest > this.end - this.pos) {
      rest -= this.end - this.pos;
      this.pos = this.end;
      if (this.#abilities.seeks === true) {
        this.base += this.end + rest;
        this.pos = 0;
        this.end = 0;
        return;
      }
      this.ensure(Math.min(rest, this.bytes.length));
    }
    this.pos += rest;
  }

  /** Moves the unread bytes to the front, to make room behind them. */
  compact(): void {
    if (this.pos === 0) return;
    this.bytes.copyWithin(0, this.pos, this.end);
    this.base += this.pos;
    this.end -= this.pos;
    this.pos = 0;
  }

  u8(): number {
    this.ensure(1);
    return this.view.getUint8(this.pos++);
  }

  /** The next byte, left unread. */
  peekU8(): number {
    this.ensure(1);
    return this.view.getUint8(this.pos);
  }

  u16(): number {
    this.ensure(2);
    const value = this.view.getUint16(this.pos);
    this.pos += 2;
    return value;
  }

  u32(): number {
    this.ensure(4);
    const value = this.view.getUint32(this.pos);
    this.pos += 4;
    return value;
  }

  /** A u64 as a number; `what` names it in the error when it is above 2^53 - 1. */
  u64(what: string): number {
    this.ensure(8);
    const high = this.view.getUint32(this.pos);
    const low = this.view.getUint32(this.pos + 4);
    this.pos += 8;
    const value = high * TWO_32 + low;
    if (!Number.isSafeInteger(value)) {
      const seen = `0x${high.toString(16)}${low.toString(16).padStart(8, "0")}`;
      refuse("BAD_VALUE", `The ${what} is absurdly large: ${seen}`, this.offset - 8);
    }
    return value;
  }

  /** `count` bytes, copied. */
  take(count: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(new ArrayBuffer(count));
    let done = 0;
    while (done < count) {
      if (this.pos === this.end) this.ensure(Math.min(count - done, this.bytes.length));
      const part = Math.min(count - done, this.end - this.pos);
      out.set(this.bytes.subarray(this.pos, this.pos + part), done);
      this.pos += part;
      done += part;
    }
    return out;
  }

  /** A string of `count` bytes, one byte a character as QEMU's names are. */
  text(count: number): string {
    return byteString(this.take(count), 0, count);
  }

  /** A u8 length and that many bytes (`str8` in docs/wire.md). */
  str8(): string {
    return this.text(this.u8());
  }
}
