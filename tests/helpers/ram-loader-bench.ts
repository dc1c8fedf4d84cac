/** A loader of RAM records over a buffer that a test fills, and what it delivers. */
import { expect } from "bun:test";
import { mapScratch } from "../../syscalls/memory.ts";
import { SIDE_BYTES } from "../../src/channel/channel.ts";
import type { PageSink } from "../../src/dest/guest.ts";
import { RamLoader } from "../../src/dest/ram-loader.ts";
import type { LoadEnd } from "../../src/dest/ram-loader.ts";
import type { RamBlock } from "../../src/ram/block.ts";
import { StreamReader } from "../../src/stream/reader.ts";

const PAGE = 4096;
const BUFFER_BYTES = 20 * PAGE;

export const BLOCKS: RamBlock[] = [
  { index: 0, name: "pc.ram", length: 100 * PAGE, pageSize: PAGE, address: 0 },
  { index: 1, name: "vga.vram", length: 30 * PAGE, pageSize: PAGE, address: 0 },
];

/** A page that went to the sink, by its first byte. */
export type Delivery = [block: string, page: number, fill: number];

/** Keeps what is delivered, page by page, and is the memory over which XBZRLE is decoded. */
export class ModelSink implements PageSink {
  readonly deliveries: Delivery[] = [];
  readonly runs: number[] = [];
  readonly memory = new Map<string, Uint8Array>();
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  #keep(block: RamBlock, offset: number, data: Uint8Array): void {
    this.memory.set(`${block.name}:${offset}`, data);
    this.deliveries.push([block.name, offset / PAGE, data[0] ?? -1]);
  }

  pages(block: RamBlock, offset: number, at: number, count: number): void {
    this.runs.push(count);
    for (let i = 0; i < count; i++) {
      const data = this.#bytes.slice(at + i * PAGE, at + (i + 1) * PAGE);
      this.#keep(block, offset + i * PAGE, data);
    }
  }

  zeros(block: RamBlock, offset: number, count: number): void {
    this.runs.push(count);
    for (let i = 0; i < count; i++) this.#keep(block, offset + i * PAGE, new Uint8Array(PAGE));
  }

  readPage(block: RamBlock, offset: number, page: Uint8Array): void {
    page.set(this.memory.get(`${block.name}:${offset}`) ?? new Uint8Array(PAGE));
  }
}

/** One that takes pages from where they have come. */
export class ScatteredSink extends ModelSink {
  scattered(block: RamBlock, offset: number, places: Int32Array, count: number): void {
    for (let i = 0; i < count; i++) this.pages(block, offset + i * PAGE, places[i] ?? -1, 1);
    this.runs.splice(-count, count, count);
  }
}

export class RamLoaderBench {
  readonly buffer = mapScratch(BUFFER_BYTES + SIDE_BYTES);
  readonly reader = new StreamReader(this.buffer.bytes.subarray(0, BUFFER_BYTES), 0);
  readonly sink: ModelSink;
  readonly loader = new RamLoader({
    reader: this.reader,
    buffer: this.buffer,
    sideAt: BUFFER_BYTES,
  });

  constructor(Sink = ModelSink) {
    this.sink = new Sink(this.buffer.bytes);
    this.loader.blocks = BLOCKS;
    this.loader.sink = this.sink;
    this.loader.runs = true;
    this.loader.packedRuns = true;
  }

  /** Feeds bytes in chunks and loads after each; what the last load said. */
  feed(bytes: Uint8Array, chunks: readonly number[] = []): LoadEnd {
    let end: LoadEnd = "needs more";
    for (let at = 0, n = 0; at < bytes.length; n++) {
      this.reader.compact();
      const room = BUFFER_BYTES - this.reader.end;
      const length = Math.min(chunks[n % Math.max(1, chunks.length)] ?? room, room);
      const part = bytes.subarray(at, at + length);
      this.buffer.bytes.set(part, this.reader.end);
      this.reader.end += part.length;
      at += part.length;
      end = this.loader.load();
      // Nothing of a stream may be left waiting in the loader but a frame that is not whole.
      if (end === "needs more") expect(this.reader.available).toBeLessThan(14 * PAGE);
    }
    return end;
  }
}
