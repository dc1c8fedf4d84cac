/**
 * From RAM records to runs of pages. Consecutive pages are joined, so that the sink gets one run and
 * spends one system call on it instead of one a page: their data are moved together in the receive
 * buffer (a copy within the cache), unless the sink can gather them. One of our own sources sends runs as they are, which go to the
 * sink from where they have arrived.
 */
import type { Channel } from "../channel/channel.ts";
import type { RamBlock } from "../ram/block.ts";
import { blockNamedIn, targetPages } from "../ram/block.ts";
import { RAM_FLAG, RUN_PAGES_MAX, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { inflatePage } from "../stream/compressed-page.ts";
import { unpackRun } from "../stream/packed-run.ts";
import { createPageRun, decodePageRun, isPageRun } from "../stream/page-run.ts";
import type { PageRun } from "../stream/page-run.ts";
import { createRamRecord, decodeRamRecord } from "../stream/ram-record.ts";
import type { RamRecord } from "../stream/ram-record.ts";
import { byteString } from "../stream/reader.ts";
import type { StreamReader } from "../stream/reader.ts";
import { decodeXbzrle } from "../stream/xbzrle.ts";
import { StreamError } from "../util/errors.ts";
import type { PageSink } from "./guest.ts";

/** Longest run that single pages are joined to: 256 KiB. */
const JOINED_PAGES_MAX = 64;

/** What `load` stopped at. */
export type LoadEnd =
  /** The body's end: a footer follows. */
  | "end of section"
  /** The bytes that are there hold no whole record any more. */
  | "needs more"
  /** The list of RAM blocks follows; its total is in `memoryTotal`. */
  | "memory size"
  /** What the source had for its multifd channels it has sent. */
  | "multifd flush";

export class RamLoader {
  /** Pages loaded since they were last looked at and set to 0 by the owner. */
  normal = 0;
  zero = 0;
  /** Sum of all block lengths, valid after "memory size". */
  memoryTotal = 0;
  blocks: readonly RamBlock[] = [];
  sink: PageSink | undefined;
  /** Called whenever pages went to the sink: how often that is, the peer decides. */
  handed: (() => void) | undefined;
  /** Whether the source has chosen to send page runs. */
  runs = false;
  /** Whether it may compress them. */
  packedRuns = false;
  readonly #run: PageRun = createPageRun();
  /** Pages of a plain run that are still to come, and the offset of the first. */
  #left = 0;
  #leftAt = 0;
  readonly #record: RamRecord = createRamRecord();
  readonly #reader: StreamReader;
  /** Room for pages that have to be decoded, and where it lies for the sinks. */
  readonly #side: Uint8Array;
  readonly #sideAt: number;
  /** The first page of it. */
  readonly #sidePage: Uint8Array;
  #block: RamBlock | undefined;
  // The run that is being joined; #count 0 means none.
  #runZero = false;
  #runOffset = 0;
  #runAt = 0;
  /** Where its pages lie, for a sink that takes them from where they are. */
  readonly #runPlaces = new Int32Array(JOINED_PAGES_MAX);
  #count = 0;

  /** The sinks used must be made for the same channel's buffer. */
  constructor(channel: Pick<Channel, "reader" | "buffer" | "sideAt">) {
    this.#reader = channel.reader;
    this.#sideAt = channel.sideAt;
    this.#side = channel.buffer.bytes.subarray(channel.sideAt);
    this.#sidePage = this.#side.subarray(0, TARGET_PAGE_SIZE);
  }

  /**
   * Loads the records that have arrived in full, and of a run the pages that have. It never waits;
   * what was joined is with the sink when it returns.
   */
  load(): LoadEnd {
    const reader = this.#reader;
    const record = this.#record;
    for (;;) {
      if (this.#left > 0 && !this.#takeRun()) return "needs more";
      const { bytes, view, pos, end, base } = reader;
      if (this.runs && end - pos >= 8 && isPageRun(view, pos)) {
        if (this.#beginRun()) continue;
        return "needs more";
      }
      const taken = decodeRamRecord(bytes, view, pos, end, record, TARGET_PAGE_SIZE, base);
      if (taken === 0) {
        this.#flush();
        return "needs more";
      }
      reader.pos = pos + taken;
      if ((record.flags & RAM_FLAG.page) !== 0) this.#page(record);
      else if ((record.flags & RAM_FLAG.zero) !== 0) this.#zeroPage(record);
      else {
        this.#flush();
        if (record.flags === RAM_FLAG.endOfSection) return "end of section";
        if (record.flags === RAM_FLAG.memSize) {
          this.memoryTotal = record.offset;
          return "memory size";
        }
        if (record.flags === RAM_FLAG.multifdFlush) return "multifd flush";
        this.#encodedPage(record, reader.base + pos);
      }
    }
  }

  /** Begins a run whose header, and frame if it is packed, has arrived in full; false if not. */
  #beginRun(): boolean {
    this.#flush();
    const { bytes, view, pos, end, base } = this.#reader;
    const run = this.#run;
    const taken = decodePageRun(bytes, view, pos, end, run, base);
    if (taken === 0) return false;
    if (run.kind === "zstd" && !this.packedRuns) {
      const what = "The source sent a compressed run, which was not agreed on";
      throw new StreamError("UNEXPECTED", what);
    }
    const block = this.#locate(run);
    // The last page of a block may be there in part.
    if (run.pages > targetPages(block) - run.offset / TARGET_PAGE_SIZE) {
      const what = `The source sends ${run.pages} pages at ${run.offset} of ${block.name}`;
      throw new StreamError("BAD_OFFSET", `${what}, which has ${block.length} bytes`);
    }
    if (run.kind === "zstd" && taken + run.dataLength > end - pos) return false;
    this.#reader.pos = pos + taken;
    if (run.kind === "plain") {
      this.#left = run.pages;
      this.#leftAt = run.offset;
    } else if (run.kind === "zero") {
      this.#zeroRun(block, run);
    } else {
      this.#packedRun(block, run, pos + taken);
    }
    return true;
  }

  /** Hands on what has come of a run, in whole pages; false while some of it is to come. */
  #takeRun(): boolean {
    const { sink } = this;
    const block = this.#block;
    if (sink === undefined || block === undefined) throw new Error("pages without a sink");
    const reader = this.#reader;
    const count = Math.min(this.#left, Math.floor(reader.available / TARGET_PAGE_SIZE));
    if (count === 0) return false;
    sink.pages(block, this.#leftAt, reader.pos, count);
    this.handed?.();
    reader.pos += count * TARGET_PAGE_SIZE;
    this.normal += count;
    this.#left -= count;
    this.#leftAt += count * TARGET_PAGE_SIZE;
    return this.#left === 0;
  }

  #packedRun(block: RamBlock, { offset, pages, dataLength }: PageRun, at: number): void {
    const { bytes, base } = this.#reader;
    unpackRun(bytes, at, dataLength, pages, this.#side, base + at);
    this.#reader.pos = at + dataLength;
    this.sink?.pages(block, offset, this.#sideAt, pages);
    this.handed?.();
    this.normal += pages;
  }

  #zeroRun(block: RamBlock, { offset, pages }: PageRun): void {
    for (let done = 0; done < pages; done += RUN_PAGES_MAX) {
      const count = Math.min(RUN_PAGES_MAX, pages - done);
      this.sink?.zeros(block, offset + done * TARGET_PAGE_SIZE, count);
      this.handed?.();
    }
    this.zero += pages;
  }

  #page(record: RamRecord): void {
    const block = this.#locate(record);
    const { offset, dataAt } = record;
    this.normal++;
    if (this.#count > 0 && !this.#runZero && this.#continues(block, offset)) {
      if (this.sink?.scattered === undefined) {
        const target = this.#runAt + this.#count * TARGET_PAGE_SIZE;
        this.#reader.bytes.copyWithin(target, dataAt, dataAt + TARGET_PAGE_SIZE);
      }
      this.#runPlaces[this.#count++] = dataAt;
      return;
    }
    this.#start(block, offset, false, dataAt);
  }

  /** A page that is not sent as it is: it is decoded beside the buffer, and goes from there. */
  #encodedPage(record: RamRecord, streamOffset: number): void {
    const { bytes, base } = this.#reader;
    const { flags, dataAt, dataLength } = record;
    const side = this.#sidePage;
    if ((flags & RAM_FLAG.xbzrle) !== 0) {
      const block = this.#locate(record);
      if (this.sink?.readPage === undefined) {
        throw new StreamError("UNEXPECTED", "The source sent an XBZRLE page after the switchover");
      }
      this.sink.readPage(block, record.offset, side);
      decodeXbzrle(bytes, dataAt, dataLength, side, base);
    } else if ((flags & RAM_FLAG.compressPage) !== 0) {
      inflatePage(bytes, dataAt, dataLength, side, base);
    } else {
      throw unsupported(flags, streamOffset);
    }
    this.normal++;
    this.#start(this.#locate(record), record.offset, false, this.#sideAt);
    this.#flush();
  }

  #zeroPage(record: RamRecord): void {
    const block = this.#locate(record);
    if (record.fill !== 0) {
      const page = `the page at ${record.offset} of ${block.name}`;
      throw new StreamError("BAD_VALUE", `The source fills ${page} with ${record.fill}, not zero`);
    }
    this.zero++;
    if (this.#count > 0 && this.#runZero && this.#continues(block, record.offset)) {
      this.#count++;
      return;
    }
    this.#start(block, record.offset, true, 0);
  }

  #continues(block: RamBlock, offset: number): boolean {
    return (
      block === this.#runBlock &&
      offset === this.#runOffset + this.#count * TARGET_PAGE_SIZE &&
      this.#count < JOINED_PAGES_MAX
    );
  }

  #runBlock: RamBlock | undefined;

  #start(block: RamBlock, offset: number, zero: boolean, at: number): void {
    this.#flush();
    this.#runBlock = block;
    this.#runZero = zero;
    this.#runOffset = offset;
    this.#runAt = at;
    this.#runPlaces[0] = at;
    this.#count = 1;
  }

  #flush(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    const { sink } = this;
    const block = this.#runBlock;
    if (sink === undefined || block === undefined) throw new Error("pages without a sink");
    if (this.#runZero) sink.zeros(block, this.#runOffset, count);
    else if (count > 1 && sink.scattered !== undefined) {
      sink.scattered(block, this.#runOffset, this.#runPlaces, count);
    } else sink.pages(block, this.#runOffset, this.#runAt, count);
    this.handed?.();
  }

  /** The record's block, with its range checked. */
  #locate(record: Pick<RamRecord, "nameAt" | "nameLength" | "offset">): RamBlock {
    if (record.nameLength > 0) {
      const { nameAt, nameLength } = record;
      const { bytes } = this.#reader;
      this.#block = blockNamedIn(this.blocks, bytes, nameAt, nameLength);
      if (this.#block === undefined) {
        const name = byteString(bytes, nameAt, nameLength);
        throw new StreamError(
          "UNKNOWN_BLOCK",
          `The source sends pages of an unknown block "${name}"`,
        );
      }
    }
    const block = this.#block;
    if (block === undefined) {
      throw new StreamError("UNKNOWN_BLOCK", "The first page of a channel does not name its block");
    }
    if (record.offset >= block.length) {
      throw new StreamError(
        "BAD_OFFSET",
        `The source sends the page at ${record.offset} of ${block.name}, which has ` +
          `${block.length} bytes`,
      );
    }
    return block;
  }
}

function unsupported(flags: number, offset: number): StreamError {
  const what = `a record with flags 0x${flags.toString(16)}`;
  return new StreamError("UNSUPPORTED", `The source sent ${what} at stream offset ${offset}`, {
    hint: "switch the capability off at the source and migrate again",
  });
}
