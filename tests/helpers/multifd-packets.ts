/**
 * What a QEMU sends on one multifd channel, composed by hand from docs/wire.md:
 *
 *     const channel = new MultifdPackets("zstd");
 *     channel.hello(0).sync(0).pages(2, "pc.ram", [[0, page]], [8192]).sync(3);
 *     send(channel.take());
 */
import { constants, Deflate, ZstdCompress } from "minizlib";

const PAGE_BYTES = 4096;
const OFFSETS = 128;
const HEADER_BYTES = 320 + OFFSETS * 8;
const MAGIC = 0x11223344;

export type Compression = "none" | "zlib" | "zstd";

const FLAGS = { none: 0, zlib: 2, zstd: 4 } as const;

/** Fields of a header that a test sets itself. */
export interface HeaderChanges {
  magic?: number;
  version?: number;
  flags?: number;
  allocated?: number;
  normal?: number;
  zero?: number;
  dataLength?: number;
}

export class MultifdPackets {
  readonly #compression: Compression;
  readonly #compressor: Deflate | ZstdCompress | undefined;
  #compressed: Buffer[] = [];
  #parts: Uint8Array[] = [];

  constructor(compression: Compression = "none") {
    this.#compression = compression;
    this.#compressor = compressorOf(compression);
    this.#compressor?.on("data", (part) => this.#compressed.push(part));
  }

  /** All that was composed since the last call. */
  take(): Uint8Array<ArrayBuffer> {
    const bytes = Uint8Array.from(Buffer.concat(this.#parts));
    this.#parts = [];
    return bytes;
  }

  hello(channel: number): this {
    const bytes = new Uint8Array(64);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, MAGIC);
    view.setUint32(4, 1);
    view.setUint8(24, channel);
    this.#parts.push(bytes);
    return this;
  }

  sync(number: number, changes: HeaderChanges = {}): this {
    this.#parts.push(header(number, "", [], { flags: 1, ...changes }));
    return this;
  }

  /** One packet: pages with their data, then pages of zeros, each by its offset. */
  pages(
    number: number,
    block: string,
    normal: readonly (readonly [offset: number, data: Uint8Array])[],
    zeros: readonly number[] = [],
    changes: HeaderChanges = {},
  ): this {
    const data = this.#pack(Buffer.concat(normal.map(([, bytes]) => bytes)));
    const offsets = [...normal.map(([offset]) => offset), ...zeros];
    const given = {
      flags: FLAGS[this.#compression],
      allocated: OFFSETS,
      normal: normal.length,
      zero: zeros.length,
      dataLength: data.length,
      ...changes,
    };
    this.#parts.push(header(number, block, offsets, given), data);
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }

  #pack(data: Buffer): Buffer {
    if (this.#compressor === undefined || data.length === 0) return data;
    this.#compressed = [];
    // A flush after each page, as QEMU's zlib does; zstd's packets are right with it too.
    for (let at = 0; at < data.length; at += PAGE_BYTES) {
      this.#compressor.write(data.subarray(at, at + PAGE_BYTES));
      this.#compressor.flush();
    }
    return Buffer.concat(this.#compressed);
  }
}

function compressorOf(compression: Compression): Deflate | ZstdCompress | undefined {
  if (compression === "none") return undefined;
  if (compression === "zlib") return new Deflate({ fullFlushFlag: constants.Z_SYNC_FLUSH });
  return new ZstdCompress({ fullFlushFlag: constants.ZSTD_e_flush });
}

function header(
  number: number,
  block: string,
  offsets: readonly number[],
  changes: HeaderChanges,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, changes.magic ?? MAGIC);
  view.setUint32(4, changes.version ?? 1);
  view.setUint32(8, changes.flags ?? 0);
  view.setUint32(12, changes.allocated ?? 0);
  view.setUint32(16, changes.normal ?? 0);
  view.setUint32(20, changes.dataLength ?? 0);
  view.setBigUint64(24, BigInt(number));
  view.setUint32(32, changes.zero ?? 0);
  bytes.set(Buffer.from(block, "latin1"), 64);
  offsets.slice(0, OFFSETS).forEach((offset, i) => view.setBigUint64(320 + i * 8, BigInt(offset)));
  return bytes;
}
