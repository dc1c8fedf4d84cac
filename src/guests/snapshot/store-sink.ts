/**
 * Pages into the files of a snapshot. They are written with pwrite(2) rather than through a
 * mapping, so that a full disk is an error with a name instead of a signal.
 */
import { GatherList, IOVEC_COUNT_MAX, readAt, writeAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import type { PageSink, ReceiveBuffer } from "../../dest/guest.ts";
import { WORD } from "../../dest/shared.ts";
import type { PageState } from "../../dest/shared.ts";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { pageSum, ZERO_PAGE_SUM } from "../stored/page-sum.ts";
import { ramFile, sumsFile } from "./layout.ts";
import { storeError } from "./store-error.ts";

/** What a thread needs to write pages. Plain data. */
export interface StoreData {
  directory: string;
  /** Descriptors of the RAM files, by block. */
  files: number[];
  /** Descriptors of the files of checksums, by block. */
  sumFiles: number[];
  /** The checksums of all pages, by block. */
  sums: SharedArrayBuffer[];
}

/** Zeros written at once over pages that held something else. */
const ZEROS_BYTES = 256 * 1024;

/** Checksums that are written at once; a run of pages has fewer. */
const SUMS_AT_ONCE = 1024;
const SUM_BYTES = 4;

/** Takes pages of every phase; one thread uses a StoreSink. */
export class StoreSink implements PageSink {
  readonly #data: StoreData;
  readonly #sums: Uint32Array<SharedArrayBuffer>[];
  readonly #pages: PageState;
  readonly #buffer: ReceiveBuffer;
  readonly #control: Int32Array<SharedArrayBuffer> | undefined;
  readonly #zeros = mapScratch(ZEROS_BYTES);
  readonly #list = new GatherList(IOVEC_COUNT_MAX);
  readonly #written = mapScratch(SUMS_AT_ONCE * SUM_BYTES);
  readonly #copied = new Uint32Array(this.#written.bytes.buffer, 0, SUMS_AT_ONCE);

  /**
   * `control` is the destination's control block after LISTEN, when missing pages are counted, and
   * their checksums say in the file that they have arrived (arrival.ts).
   */
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
    this.#writePages(block, offset, this.#buffer.address + at, count * TARGET_PAGE_SIZE);
    const sums = this.#sums[block.index];
    const first = offset / TARGET_PAGE_SIZE;
    for (let i = 0; i < count && sums !== undefined; i++) {
      const from = at + i * TARGET_PAGE_SIZE;
      sums[first + i] = pageSum(this.#buffer.bytes.subarray(from, from + TARGET_PAGE_SIZE));
    }
    this.#note(block, first, count);
  }

  scattered(block: RamBlock, offset: number, places: Int32Array, count: number): void {
    const { address, bytes } = this.#buffer;
    this.#list.clear();
    for (let i = 0; i < count; i++) this.#list.add(address + (places[i] ?? 0), TARGET_PAGE_SIZE);
    this.#writeList(block, offset);
    const sums = this.#sums[block.index];
    const first = offset / TARGET_PAGE_SIZE;
    for (let i = 0; i < count && sums !== undefined; i++) {
      const from = places[i] ?? 0;
      sums[first + i] = pageSum(bytes.subarray(from, from + TARGET_PAGE_SIZE));
    }
    this.#note(block, first, count);
  }

  zeros(block: RamBlock, offset: number, count: number): void {
    const sums = this.#sums[block.index];
    const first = offset / TARGET_PAGE_SIZE;
    for (let page = first; page < first + count && sums !== undefined; page++) {
      // A hole is zeros already; only what held something else has to be written over.
      if (sums[page] !== ZERO_PAGE_SUM) {
        this.#writePages(block, page * TARGET_PAGE_SIZE, this.#zeros.address, TARGET_PAGE_SIZE);
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
    this.#writeSums(block, first, count);
    let fresh = 0;
    for (let page = first; page < first + count; page++) {
      if (received.set(page)) fresh++;
    }
    Atomics.sub(this.#control, WORD.missing, fresh);
  }

  #writePages({ index }: RamBlock, offset: number, address: number, length: number): void {
    this.#write(this.#data.files[index] ?? -1, ramFile(index), address, length, offset);
  }

  #writeList({ index }: RamBlock, offset: number): void {
    const list = this.#list;
    const fd = this.#data.files[index] ?? -1;
    const end = offset + list.remaining;
    while (list.remaining > 0) {
      const at = end - list.remaining;
      const result = list.writeAt(fd, at);
      if (result <= 0) this.#fail(ramFile(index), "pwritev", -result, list.remaining, at);
    }
  }

  #fail(name: string, syscall: string, errno: number, bytes: number, offset: number): never {
    throw storeError(this.#data.directory, name, syscall, errno, `, ${bytes} bytes at ${offset}`);
  }

  #writeSums({ index }: RamBlock, first: number, count: number): void {
    const sums = this.#sums[index];
    if (sums === undefined) throw new Error("no checksums");
    const fd = this.#data.sumFiles[index] ?? -1;
    for (let from = first; from < first + count; from += SUMS_AT_ONCE) {
      const part = Math.min(SUMS_AT_ONCE, first + count - from);
      this.#copied.set(sums.subarray(from, from + part));
      this.#write(fd, sumsFile(index), this.#written.address, part * SUM_BYTES, from * SUM_BYTES);
    }
  }

  #write(fd: number, name: string, address: number, length: number, offset: number): void {
    for (let done = 0; done < length;) {
      const result = writeAt(fd, address + done, length - done, offset + done);
      if (result <= 0) this.#fail(name, "pwrite", -result, length - done, offset + done);
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
      const details = `, ${TARGET_PAGE_SIZE} bytes at ${offset}`;
      const errno = Math.max(0, -result);
      throw storeError(this.#stored.directory, ramFile(block.index), "pread", errno, details);
    }
    page.set(this.#page.bytes);
  }
}
