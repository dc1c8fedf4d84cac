/**
 * The pages of a snapshot, read from its files. They are read with pread(2) into memory of our own
 * and checked there: a file that is cut off or a disk that fails is an error with a name instead of
 * a signal, and what is sent is the very copy that was checked.
 */
import { SyscallError } from "../../../syscalls/error.ts";
import { readAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import type { RamBlock } from "../../ram/block.ts";
import type { PageReader } from "../../ram/page-reader.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { damagedSnapshot } from "./damage.ts";
import { pageSum, ZERO_PAGE_SUM } from "./layout.ts";
import type { OpenedSnapshot } from "./open.ts";

/** Read at once where pages are wanted in order. */
const AHEAD_BYTES = 256 * 1024;
/** Read at once elsewhere: what a guest asks for next is often the page behind. */
const AROUND_BYTES = 16 * 1024;
/** Pages that are skipped (zeros, or sent already) up to here do not break the order. */
const GAP_BYTES_MAX = AHEAD_BYTES;

export class StoredPages implements PageReader {
  readonly #snapshot: OpenedSnapshot;
  readonly #sums: Uint32Array<SharedArrayBuffer>[];
  readonly #scratch = mapScratch(AHEAD_BYTES);
  /** The pages of the scratch memory; made once, as nothing is allocated a page. */
  readonly #slots: Uint8Array[] = [];
  /** What the scratch memory holds: [#start, #end) of the block with this index. */
  #index = -1;
  #start = 0;
  #end = 0;

  constructor(snapshot: OpenedSnapshot) {
    this.#snapshot = snapshot;
    this.#sums = snapshot.sums.map((shared) => new Uint32Array(shared));
    for (let at = 0; at < AHEAD_BYTES; at += TARGET_PAGE_SIZE) {
      this.#slots.push(this.#scratch.bytes.subarray(at, at + TARGET_PAGE_SIZE));
    }
  }

  /** Known from the checksum, so pages of zeros are never read. */
  isZero(block: RamBlock, offset: number): boolean {
    return this.#sumOf(block, offset) === ZERO_PAGE_SUM;
  }

  copyPage(block: RamBlock, offset: number, target: Uint8Array, at: number): void {
    const held = block.index === this.#index && offset >= this.#start && offset < this.#end;
    if (!held) this.#read(block, offset);
    const page = this.#slots[(offset - this.#start) / TARGET_PAGE_SIZE];
    if (page === undefined || pageSum(page) !== this.#sumOf(block, offset)) {
      throw this.#damaged(block, offset, "does not have its checksum");
    }
    target.set(page, at);
  }

  #sumOf(block: RamBlock, offset: number): number | undefined {
    return this.#sums[block.index]?.[offset / TARGET_PAGE_SIZE];
  }

  /**
   * Fills the scratch memory from `offset` on, with that page at least: where the end of the file
   * or a bad block lies behind it, pread(2) brings what is before.
   */
  #read(block: RamBlock, offset: number): void {
    const fd = this.#snapshot.descriptors[block.index] ?? -1;
    const { address } = this.#scratch;
    const behind = block.index === this.#index ? offset - this.#end : -1;
    const inOrder = behind >= 0 && behind <= GAP_BYTES_MAX;
    const wanted = Math.min(inOrder ? AHEAD_BYTES : AROUND_BYTES, block.length - offset);
    this.#index = -1;
    const got = readAt(fd, address, wanted, offset);
    if (got < 0) {
      const name = this.#snapshot.files[block.index] ?? "";
      const details = `${this.#snapshot.directory}/${name}, ${wanted} bytes at ${offset}`;
      const cause = new SyscallError("pread", -got, details);
      throw this.#damaged(block, offset, "cannot be read", cause);
    }
    if (got < TARGET_PAGE_SIZE) throw this.#damaged(block, offset, "is cut off");
    this.#index = block.index;
    this.#start = offset;
    this.#end = offset + got - (got % TARGET_PAGE_SIZE);
  }

  #damaged(block: RamBlock, offset: number, what: string, cause?: unknown): Error {
    const { directory, files } = this.#snapshot;
    const page = `the page at ${offset} of ${files[block.index]} (${block.name})`;
    const hint = "the page was not sent, and the guest does not go on without it";
    return damagedSnapshot(directory, `${page} ${what}`, hint, cause);
  }
}
