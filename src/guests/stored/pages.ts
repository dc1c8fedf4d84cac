/**
 * The pages of a guest that lies in files. They are read with pread(2) into memory of our own and
 * checked there: a file that is cut off or a disk that fails is an error with a name instead of a
 * signal, and what is sent is the very copy that was checked.
 */
import { SyscallError } from "../../../syscalls/error.ts";
import { GatherList, IOVEC_COUNT_MAX, readAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import type { Scratch } from "../../../syscalls/memory.ts";
import type { RamBlock } from "../../ram/block.ts";
import type { PageReader } from "../../ram/page-reader.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { pageSum } from "./page-sum.ts";

/** Read at once where pages are wanted in order. */
const AHEAD_BYTES = 256 * 1024;
/** Read at once elsewhere: what a guest asks for next is often the page behind. */
const AROUND_BYTES = 16 * 1024;
/** What is skipped (zeros, pages sent already, what is no page) up to here leaves it in order. */
const GAP_BYTES_MAX = AHEAD_BYTES;

/** Where the pages of a guest lie. Pages are named by their block's index and their number in it. */
export interface PageTable {
  /** Whether the page is zeros, and so need not be read. */
  isZero(block: number, page: number): boolean;
  /** Descriptor of the file that a page lies in. */
  descriptorOf(block: number, page: number): number;
  /** Path of that file, for errors. */
  pathOf(block: number, page: number): string;
  /** Where it lies there. */
  offsetOf(block: number, page: number): number;
  /**
   * The page's sum (`pageSum`); undefined where no sums are known, and `unchanged` is asked after
   * every read instead.
   */
  sumOf(block: number, page: number): number | undefined;
  /** Whether the file that a page lies in is still the one that the table is of. */
  unchanged(block: number, page: number): boolean;
  /** The error of a page that is not what it was: `what` says in which way. */
  damaged(block: RamBlock, offset: number, what: string, cause?: unknown): Error;
}

/** Reads the pages of a table; each thread opens its own. */
export class StoredPages implements PageReader {
  readonly #table: PageTable;
  readonly #scratch = mapScratch(AHEAD_BYTES);
  readonly #held: Buffer;
  readonly #list = new GatherList(IOVEC_COUNT_MAX);
  /** What the scratch memory holds: [#start, #end) of this file. */
  #fd = -1;
  #start = 0;
  #end = 0;

  constructor(table: PageTable) {
    this.#table = table;
    this.#held = Buffer.from(this.#scratch.bytes.buffer, 0, AHEAD_BYTES);
  }

  isZero(block: RamBlock, offset: number): boolean {
    return this.#table.isZero(block.index, offset / TARGET_PAGE_SIZE);
  }

  copyPage(block: RamBlock, offset: number, target: Uint8Array, at: number): void {
    const page = offset / TARGET_PAGE_SIZE;
    if (this.#table.isZero(block.index, page)) {
      target.fill(0, at, at + TARGET_PAGE_SIZE);
      return;
    }
    const fd = this.#table.descriptorOf(block.index, page);
    const from = this.#table.offsetOf(block.index, page);
    const held = fd === this.#fd && from >= this.#start && from + TARGET_PAGE_SIZE <= this.#end;
    if (!held) this.#read(fd, from, block, offset);
    const heldAt = from - this.#start;
    this.#held.copy(target, at, heldAt, heldAt + TARGET_PAGE_SIZE);
    this.#check(block, offset, target, at);
  }

  copyPages(
    block: RamBlock,
    offset: number,
    count: number,
    target: Scratch,
    at: number,
    stride: number,
  ): void {
    for (let done = 0; done < count;) {
      const [from, to] = [offset + done * TARGET_PAGE_SIZE, at + done * stride];
      const got = this.#readTogether(block, from, count - done, target.address + to, stride);
      for (let page = 0; page < got; page++) {
        this.#check(block, from + page * TARGET_PAGE_SIZE, target.bytes, to + page * stride);
      }
      // Alone, also where it cannot be read: that says why.
      if (got === 0) this.copyPage(block, from, target.bytes, to);
      done += Math.max(got, 1);
    }
  }

  /** What was read must be what was stored. */
  #check(block: RamBlock, offset: number, bytes: Uint8Array, at: number): void {
    const sum = this.#table.sumOf(block.index, offset / TARGET_PAGE_SIZE);
    if (sum === undefined || pageSum(bytes.subarray(at, at + TARGET_PAGE_SIZE)) === sum) return;
    throw this.#table.damaged(block, offset, "does not have its checksum");
  }

  /**
   * Reads of `count` pages those which lie one behind the other in their file, the first to `address`,
   * in one call. Returns how many could be read; 0 too where it is no more than one.
   */
  #readTogether(
    block: RamBlock,
    offset: number,
    count: number,
    address: number,
    stride: number,
  ): number {
    const first = offset / TARGET_PAGE_SIZE;
    const fd = this.#table.descriptorOf(block.index, first);
    const from = this.#table.offsetOf(block.index, first);
    const list = this.#list;
    list.clear();
    for (let page = 0; page < count && list.room > 0; page++) {
      const place = this.#table.offsetOf(block.index, first + page);
      const follows = place === from + page * TARGET_PAGE_SIZE;
      if (!follows || this.#table.descriptorOf(block.index, first + page) !== fd) break;
      list.add(address + page * stride, TARGET_PAGE_SIZE);
    }
    if (list.remaining === TARGET_PAGE_SIZE) return 0;
    const got = list.readAt(fd, from);
    if (got < TARGET_PAGE_SIZE || !this.#table.unchanged(block.index, first)) return 0;
    return Math.floor(got / TARGET_PAGE_SIZE);
  }

  /**
   * Fills the scratch memory from `from` on, with that page at least: where the end of the file or
   * a bad block lies behind it, pread(2) brings what is before.
   */
  #read(fd: number, from: number, block: RamBlock, offset: number): void {
    const behind = fd === this.#fd ? from - this.#end : -1;
    // The last page held is often there in part.
    const inOrder = behind > -TARGET_PAGE_SIZE && behind <= GAP_BYTES_MAX;
    const wanted = inOrder ? AHEAD_BYTES : AROUND_BYTES;
    this.#fd = -1;
    const got = readAt(fd, this.#scratch.address, wanted, from);
    if (got < 0) {
      const path = this.#table.pathOf(block.index, offset / TARGET_PAGE_SIZE);
      const cause = new SyscallError("pread", -got, `${path}, ${wanted} bytes at ${from}`);
      throw this.#table.damaged(block, offset, "cannot be read", cause);
    }
    if (got < TARGET_PAGE_SIZE) throw this.#table.damaged(block, offset, "is cut off");
    if (!this.#table.unchanged(block.index, offset / TARGET_PAGE_SIZE)) {
      throw this.#table.damaged(block, offset, "has changed since it was opened");
    }
    this.#fd = fd;
    this.#start = from;
    this.#end = from + got;
  }
}
