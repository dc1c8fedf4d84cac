/**
 * What lies where in bytes that are to be mutated: fields (a number, a name, a body) and spans
 * (records, sections, messages), told by whoever reads them in order. The mutations of mutate.ts
 * aim at these; they need not be complete, nor stay right in the mutated bytes.
 */

/** One field, of the byte order of the wire unless it says otherwise. */
export interface Field {
  at: number;
  bytes: number;
  /** What it is, as in "ram.block.length": some mutations aim at fields by their names. */
  what: string;
}

/** Something that can be dropped, repeated or moved as a whole. */
export interface Span {
  at: number;
  end: number;
  what: string;
}

export interface Layout {
  fields: Field[];
  spans: Span[];
}

/** Bytes that do not read as what they should be. */
export class ModelError extends Error {}

/** Reads big-endian numbers in order, and notes where they stood. */
export class Cursor {
  readonly bytes: Uint8Array;
  readonly layout: Layout;
  readonly #view: DataView;
  at = 0;

  constructor(bytes: Uint8Array, layout: Layout = { fields: [], spans: [] }) {
    this.bytes = bytes;
    this.layout = layout;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  /** Steps over `count` bytes and gives where they began. */
  take(count: number, what: string): number {
    if (count > this.left) throw new ModelError(`${what} is cut off at ${this.at}`);
    const { at } = this;
    if (count > 0) this.layout.fields.push({ at, bytes: count, what });
    this.at += count;
    return at;
  }

  u8(what: string): number {
    return this.#view.getUint8(this.take(1, what));
  }

  u16(what: string): number {
    return this.#view.getUint16(this.take(2, what));
  }

  u32(what: string): number {
    return this.#view.getUint32(this.take(4, what));
  }

  u64(what: string): number {
    return Number(this.#view.getBigUint64(this.take(8, what)));
  }

  slice(count: number, what: string): Uint8Array {
    const at = this.take(count, what);
    return this.bytes.subarray(at, at + count);
  }

  text(count: number, what: string): string {
    return Buffer.from(this.slice(count, what)).toString("latin1");
  }

  str8(what: string): string {
    return this.text(this.u8(`${what}.length`), what);
  }

  peek(ahead = 0): number {
    return this.bytes[this.at + ahead] ?? -1;
  }

  /** Notes what `read` reads as one span. */
  span<Result>(what: string, read: () => Result): Result {
    const { at } = this;
    const result = read();
    this.layout.spans.push({ at, end: this.at, what });
    return result;
  }
}
