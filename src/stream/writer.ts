/**
 * A growing buffer that codecs write big-endian fields into. For headers, commands and packages:
 * page data never passes through it.
 */
import { putU64 } from "./put.ts";

const INITIAL_BYTES = 256;

/** A field that does not fit would be cut off in silence by a DataView: a programmer's error. */
function checkUnsigned(value: number, greatest: number): void {
  if (!Number.isInteger(value) || value < 0 || value > greatest) {
    throw new RangeError(`${value} is not in 0 to ${greatest}`);
  }
}

export class StreamWriter {
  #bytes = new Uint8Array(new ArrayBuffer(INITIAL_BYTES));
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** A view of what was written; valid until the next write. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(count: number): number {
    const at = this.#length;
    const needed = at + count;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(new ArrayBuffer(Math.max(needed, this.#bytes.length * 2)));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = needed;
    return at;
  }

  u8(value: number): this {
    checkUnsigned(value, 0xff);
    const at = this.#reserve(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    checkUnsigned(value, 0xffff);
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    checkUnsigned(value, 0xffff_ffff);
    const at = this.#reserve(4);
    this.#view.setUint32(at, value);
    return this;
  }

  /** A u64 from a safe integer. */
  u64(value: number): this {
    checkUnsigned(value, Number.MAX_SAFE_INTEGER);
    const at = this.#reserve(8);
    putU64(this.#view, at, value);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** One byte a character; characters above 255 are a programmer's error. */
  text(text: string): this {
    const at = this.#reserve(text.length);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code > 0xff) throw new RangeError(`not a byte string: ${text}`);
      this.#bytes[at + i] = code;
    }
    return this;
  }

  /** A u8 length and the characters (`str8` in docs/wire.md). */
  str8(text: string): this {
    if (text.length > 0xff) throw new RangeError(`longer than 255 bytes: ${text}`);
    return this.u8(text.length).text(text);
  }
}
