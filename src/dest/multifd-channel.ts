/** One multifd channel at the destination: its packets, and the pages in them. */
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import type { Channel } from "../channel/channel.ts";
import { blockNamed } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import {
  MULTIFD_DATA_BYTES_MAX,
  MULTIFD_HEADER_BYTES,
  MULTIFD_HELLO_BYTES,
  MULTIFD_PAGES,
  TARGET_PAGE_SIZE,
} from "../stream/constants.ts";
import {
  createMultifdPacket,
  multifdOffset,
  readMultifdHeader,
  readMultifdHello,
} from "../stream/multifd.ts";
import type { MultifdCompression } from "../stream/multifd.ts";
import { MultifdUnpacker } from "../stream/multifd-unpacker.ts";
import { StreamError } from "../util/errors.ts";
import type { PageSink, ReceiveBuffer } from "./guest.ts";

/** Receive buffer of a channel: a packet of the greatest length fits. */
export const MULTIFD_BUFFER_BYTES = MULTIFD_HEADER_BYTES + MULTIFD_DATA_BYTES_MAX;

/** What a channel hands its pages to, and what it tells. */
export interface MultifdOptions {
  channel: Channel;
  blocks: readonly RamBlock[];
  /** Makes a sink for pages that lie in `buffer`. */
  openSink: (buffer: ReceiveBuffer) => PageSink;
  /** Called with each packet's number, SYNC or not, and its pages, before they are taken. */
  note: (number: number, pages: number) => void;
}

/** Why `load` stopped. */
export type MultifdLoadEnd = "hello" | "sync" | "needs more";

export class MultifdChannel {
  readonly channel: Channel;
  /** Its number among the channels of the source; undefined until it has said so. */
  id: number | undefined;
  /** SYNC packets that were read. */
  syncs = 0;
  /** Whether pages have come since the last of them. */
  unsynced = false;
  /** The source has closed it, and all that it sent has been loaded. */
  closed = false;
  compression: MultifdCompression = "none";
  /** Pages loaded since they were last looked at and set to 0 by the owner. */
  normal = 0;
  zero = 0;
  readonly #options: MultifdOptions;
  readonly #packet = createMultifdPacket();
  readonly #sink: PageSink;
  #unpacker: MultifdUnpacker | undefined;
  #unpacked: (Scratch & { sink: PageSink }) | undefined;

  constructor(options: MultifdOptions) {
    this.#options = options;
    this.channel = options.channel;
    this.#sink = options.openSink(options.channel.buffer);
  }

  /** Loads what has arrived, without waiting, up to the hello or the next SYNC. */
  load(): MultifdLoadEnd {
    for (;;) {
      const end = this.#step();
      if (end === "hello" || end === "sync") return end;
      if (end === "packet") continue;
      const got = this.channel.tryRead();
      if (got < 0) this.closed = true;
      if (got <= 0) return "needs more";
    }
  }

  /** Takes the hello or one packet that is there as a whole. */
  #step(): "hello" | "sync" | "packet" | "needs more" {
    const { reader } = this.channel;
    if (this.id === undefined) {
      if (reader.available < MULTIFD_HELLO_BYTES) return "needs more";
      this.id = readMultifdHello(reader.view, reader.pos, reader.base);
      reader.pos += MULTIFD_HELLO_BYTES;
      return "hello";
    }
    if (reader.available < MULTIFD_HEADER_BYTES) return "needs more";
    const packet = this.#packet;
    readMultifdHeader(reader.view, reader.pos, packet, reader.base);
    const length = MULTIFD_HEADER_BYTES + packet.dataLength;
    if (reader.available < length) return "needs more";
    this.#options.note(packet.number, packet.normal + packet.zero);
    this.#loadPages(reader.pos);
    reader.pos += length;
    if (!packet.sync) return "packet";
    this.syncs++;
    this.unsynced = false;
    return "sync";
  }

  #loadPages(at: number): void {
    const { block: name, normal, zero } = this.#packet;
    if (normal + zero === 0) return;
    const block = blockNamed(this.#options.blocks, name);
    if (block === undefined) {
      const what = `The source sends pages of an unknown block "${name}" on a multifd channel`;
      throw new StreamError("UNKNOWN_BLOCK", what);
    }
    this.unsynced = true;
    this.#loadNormal(at, block);
    const sink = this.#sink;
    this.#forEachRun(at, normal, normal + zero, block, (offset, _, count) => {
      sink.zeros(block, offset, count);
    });
    this.normal += normal;
    this.zero += zero;
  }

  #loadNormal(at: number, block: RamBlock): void {
    const { normal, compression } = this.#packet;
    if (normal === 0) return;
    let sink = this.#sink;
    let from = at + MULTIFD_HEADER_BYTES;
    if (compression !== "none") {
      sink = this.#unpack(from, compression);
      from = 0;
    }
    this.#forEachRun(at, 0, normal, block, (offset, index, count) => {
      sink.pages(block, offset, from + index * TARGET_PAGE_SIZE, count);
    });
  }

  /** Unpacks the data at `from` of the receive buffer; gives the sink of where they are then. */
  #unpack(from: number, compression: Exclude<MultifdCompression, "none">): PageSink {
    const { reader } = this.channel;
    if (this.#unpacked === undefined) {
      const scratch = mapScratch(MULTIFD_PAGES * TARGET_PAGE_SIZE);
      this.#unpacked = { ...scratch, sink: this.#options.openSink(scratch) };
      this.#unpacker = new MultifdUnpacker(compression);
      this.compression = compression;
    }
    if (compression !== this.#unpacker?.compression) {
      throw new StreamError("BAD_VALUE", "A multifd channel changes its compression");
    }
    const { dataLength, normal } = this.#packet;
    const pages = this.#unpacked.bytes.subarray(0, normal * TARGET_PAGE_SIZE);
    const data = reader.bytes.subarray(from, from + dataLength);
    this.#unpacker.unpack(data, pages, reader.base + from);
    return this.#unpacked.sink;
  }

  /** Hands over the pages [first, end) of a packet in runs of consecutive ones. */
  #forEachRun(
    at: number,
    first: number,
    end: number,
    block: RamBlock,
    take: (offset: number, index: number, count: number) => void,
  ): void {
    const { view } = this.channel.reader;
    for (let index = first; index < end;) {
      const offset = multifdOffset(view, at, index);
      let count = 1;
      while (
        index + count < end &&
        multifdOffset(view, at, index + count) === offset + count * TARGET_PAGE_SIZE
      ) {
        count++;
      }
      if (offset % TARGET_PAGE_SIZE !== 0 || offset + count * TARGET_PAGE_SIZE > block.length) {
        const what = `${count} pages at ${offset} of ${block.name}, which has ${block.length} bytes`;
        throw new StreamError("BAD_OFFSET", `The source sends ${what}, on a multifd channel`);
      }
      take(offset, index, count);
      index += count;
    }
  }
}
