/**
 * Pages into the files of a snapshot. They are written with pwrite(2) rather than through a
 * mapping, so that a full disk is an error with a name instead of a signal.
 */
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { readAt, writeAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import type { PageSink, ReceiveBuffer } from "../../dest/guest.ts";
import { WORD } from "../../dest/shared.ts";
import type { PageState } from "../../dest/shared.ts";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { pageSum, ZERO_PAGE_SUM } from "../stored/page-sum.ts";
import { ramFile } from "./layout.ts";
import { storeError } from "./store-error.ts";

/** What a thread needs to write pages. Plain data. */
export interface StoreData {
  directory: string;
  /** Descriptors of the RAM files, by block. */
  files: number[];
  /** The checksums of all pages, by block. */
  sums: SharedArrayBuffer[];
}

/** Zeros written at once over pages that held something else. */
const ZEROS_BYTES = 256 * 1024;

/** Takes pages of every phase; one thread uses a StoreSink. */
export class StoreSink implements PageSink {
  readonly #data: StoreData;
  readonly #sums: Uint32Array<SharedArrayBuffer>[];
  readonly #pages: PageState;
  readonly #buffer: ReceiveBuffer;
  readonly #control: Int32Array<SharedArrayBuffer> | undefined;
  readonly #zeros = mapScratch(ZEROS_BYTES);

  /** `control` is the destination's control block after LISTEN, when missing pages are counted. */
  constructor(
    data: StoreData,
    pages: PageState,
    buffer: ReceiveBuffer,
    control?: Int32Array<SharedArrayBuffer>,
  ) {
    this.#data = data;
    this.#sums = data.sums.map((shared) => new Uint32Array(shared));
    this.#pages = pages;
    this.#buffer = buffer;
    this.#control = control;
  }

  pages(block: RamBlock, offset: number, at: number, count: number): void {
    this.#write(block, offset, this.#buffer.address + at, count * TARGET_PAGE_SIZE);
    const sums = this.#sums[block.index];
    const first = offset / TARGET_PAGE_SIZE;
    for (let i = 0; i < count && sums !== undefined; i++) {
      const from = at + i * TARGET_PAGE_SIZE;
      sums[first + i] = pageSum(this.#buffer.bytes.subarray(from, from + TARGET_PAGE_SIZE));
    }
    this.#note(block, first, count);
  }

  zeros(block: RamBlock, offset: number, count: number): void {
    const sums = this.#sums[block.index];
    const first = offset / TARGET_PAGE_SIZE;
    for (let page = first; page < first + count && sums !== undefined; page++) {
      // A hole is zeros already; only what held something else has to be written over.
      if (sums[page] !== ZERO_PAGE_SUM) {
        this.#write(block, page * TARGET_PAGE_SIZE, this.#zeros.address, TARGET_PAGE_SIZE);
      }
      sums[page] = ZERO_PAGE_SUM;
    }
    this.#note(block, first, count);
  }

  #note(block: RamBlock, first: number, count: number): void {
    const received = this.#pages.received[block.index];
    if (received === undefined) throw new Error("no page state");
    if (this.#control === undefined) {
      received.setRange(first, count);
      return;
    }
    let fresh = 0;
    for (let page = first; page < first + count; page++) {
      if (received.set(page)) fresh++;
    }
    Atomics.sub(this.#control, WORD.missing, fresh);
  }

  #write(block: RamBlock, offset: number, address: number, length: number): void {
    const fd = this.#data.files[block.index] ?? -1;
    for (let done = 0; done < length;) {
      const result = writeAt(fd, address + done, length - done, offset + done);
      if (result <= 0)
        throw storeError(this.#data.directory, ramFile(block.index), "pwrite", -result);
      done += result;
    }
  }
}

/** Precopy's sink, which can also say what it took: XBZRLE is decoded over it. */
export class PrecopyStoreSink extends StoreSink {
  readonly #stored: StoreData;
  readonly #page = mapScratch(TARGET_PAGE_SIZE);

  constructor(data: StoreData, pages: PageState, buffer: ReceiveBuffer) {
    super(data, pages, buffer);
    this.#stored = data;
  }

  readPage(block: RamBlock, offset: number, page: Uint8Array): void {
    const fd = this.#stored.files[block.index] ?? -1;
    const result = readAt(fd, this.#page.address, TARGET_PAGE_SIZE, offset);
    if (result !== TARGET_PAGE_SIZE) {
      const errno = result < 0 ? -result : ERRNO.EIO;
      throw storeError(this.#stored.directory, ramFile(block.index), "pread", errno);
    }
    page.set(this.#page.bytes);
  }
}
