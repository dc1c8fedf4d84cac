/** RAM records as a source composes them, one channel's worth, with or without CONTINUE. */
import { deflateSync, zstdCompressSync } from "node:zlib";
import { RAM_FLAG } from "../../src/stream/constants.ts";
import { StreamWriter } from "../../src/stream/writer.ts";
import { encodeXbzrle } from "../../src/stream/xbzrle.ts";

export class RamRecords {
  readonly #writer = new StreamWriter();
  #block: string | undefined;

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#writer.bytes.slice();
  }

  /** `named`: the block's name is written even if the last record was about the same block. */
  #head(flags: number, block: string, offset: number, named: boolean): StreamWriter {
    if (!named && block === this.#block)
      return this.#writer.u64(offset + flags + RAM_FLAG.continue);
    this.#block = block;
    return this.#writer.u64(offset + flags).str8(block);
  }

  page(block: string, offset: number, data: Uint8Array, named = false): this {
    this.#head(RAM_FLAG.page, block, offset, named).raw(data);
    return this;
  }

  zero(block: string, offset: number, named = false, fill = 0): this {
    this.#head(RAM_FLAG.zero, block, offset, named).u8(fill);
    return this;
  }

  compressed(block: string, offset: number, data: Uint8Array, named = false): this {
    const packed = deflateSync(data);
    this.#head(RAM_FLAG.compressPage, block, offset, named).u32(packed.length).raw(packed);
    return this;
  }

  /** The change from `old` to `data`, or the page as it is where XBZRLE does not pay. */
  xbzrle(block: string, offset: number, old: Uint8Array, data: Uint8Array, named = false): this {
    const out = new Uint8Array(4096);
    const length = encodeXbzrle(old, data, out);
    if (length <= 0) return this.page(block, offset, data, named);
    const head = this.#head(RAM_FLAG.xbzrle, block, offset, named);
    head.u8(1).u16(length).raw(out.subarray(0, length));
    return this;
  }

  /** A run of pages of our own ends: as they are, or as one frame of zstd. */
  run(block: string, offset: number, data: Uint8Array, packed = false, named = false): this {
    const kind = packed ? RAM_FLAG.compressPage : RAM_FLAG.page;
    const head = this.#head(RAM_FLAG.run | kind, block, offset, named).u32(data.length / 4096);
    if (!packed) {
      head.raw(data);
      return this;
    }
    const frame = zstdCompressSync(data);
    head.u32(frame.length).raw(frame);
    return this;
  }

  zeroRun(block: string, offset: number, pages: number, named = false): this {
    this.#head(RAM_FLAG.run | RAM_FLAG.zero, block, offset, named).u32(pages);
    return this;
  }

  memorySize(total: number): this {
    this.#writer.u64(total + RAM_FLAG.memSize);
    return this;
  }

  endOfSection(): this {
    this.#writer.u64(RAM_FLAG.endOfSection);
    return this;
  }

  /** Any u64, for records that nobody sends. */
  raw(word: number): this {
    this.#writer.u64(word);
    return this;
  }
}
