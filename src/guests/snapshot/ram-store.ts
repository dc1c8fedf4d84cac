/**
 * RAM that arrives in files: one of pages and one of their checksums for each block. Pages and checksums
 * are written by the sinks (store-sink.ts), for which this makes the room, and which it ends.
 */
import { punchHole } from "../../../syscalls/fallocate.ts";
import type { PageState } from "../../dest/shared.ts";
import type { PageBitmap } from "../../ram/bitmap.ts";
import { targetPages } from "../../ram/block.ts";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { ZERO_PAGE_SUM } from "../stored/page-sum.ts";
import { PAGE_TO_COME } from "./arrival.ts";
import { readArrivedPages } from "./arrived-pages.ts";
import type { SnapshotFiles } from "./files.ts";
import { ramFile, sha256, SUM_BYTES, sumsFile } from "./layout.ts";
import type { ManifestBlock } from "./layout.ts";
import { forEachZeroRun } from "./page-runs.ts";
import type { StoreData } from "./store-sink.ts";

/**
 * Shorter runs of zeros keep the room that was reserved for them: ext4 takes up to a millisecond a
 * hole, and the memory that a guest has never used comes in long runs.
 */
const PUNCH_PAGES_MIN = 16;

export class RamStore {
  /** For the sinks. */
  readonly data: StoreData;
  readonly #files: SnapshotFiles;
  readonly #blocks: readonly RamBlock[];

  private constructor(files: SnapshotFiles, blocks: readonly RamBlock[], data: StoreData) {
    this.#files = files;
    this.#blocks = blocks;
    this.data = data;
  }

  /** Makes the files, of zeros, with room for the checksums. @throws PostcopyError. */
  static create(snapshot: SnapshotFiles, blocks: readonly RamBlock[]): RamStore {
    const files = blocks.map(({ index, length }) => snapshot.create(ramFile(index), length));
    const sums = blocks.map((block) => {
      const shared = new SharedArrayBuffer(targetPages(block) * SUM_BYTES);
      new Uint32Array(shared).fill(ZERO_PAGE_SUM);
      return shared;
    });
    const sumFiles = blocks.map((block) => createSums(snapshot, block));
    const { directory } = snapshot;
    return new RamStore(snapshot, blocks, { directory, files, sums, sumFiles });
  }

  /** Opens those that another process has written to; also says which pages have arrived. */
  static reopen(
    snapshot: SnapshotFiles,
    blocks: readonly RamBlock[],
  ): { store: RamStore; received: PageBitmap[] } {
    const arrived = blocks.map((block) => readArrivedPages(snapshot, block));
    const store = new RamStore(snapshot, blocks, {
      directory: snapshot.directory,
      files: arrived.map(({ file }) => file),
      sums: arrived.map(({ sums }) => sums),
      sumFiles: arrived.map(({ sumFile }) => sumFile),
    });
    return { store, received: arrived.map(({ received }) => received) };
  }

  /**
   * A range will come in postcopy. What holds data has its room already; the rest, from the first
   * page without to the last, is reserved in one go.
   */
  reserve(block: RamBlock, start: number, length: number): void {
    const of = this.#sumsOf(block);
    const end = (start + length) / TARGET_PAGE_SIZE;
    let [first, last, holes] = [end, end, 0];
    for (let page = start / TARGET_PAGE_SIZE; page < end; page++) {
      if (of[page] !== ZERO_PAGE_SUM) continue;
      if (holes++ === 0) first = page;
      last = page;
    }
    if (holes === 0) return;
    const offset = first * TARGET_PAGE_SIZE;
    const bytes = (last + 1) * TARGET_PAGE_SIZE - offset;
    const needed = holes * TARGET_PAGE_SIZE;
    const fd = this.data.files[block.index] ?? -1;
    this.#files.reserve(fd, ramFile(block.index), offset, bytes, needed);
  }

  /** Makes durable which pages are here, with their checksums, and which are to come. */
  writeArrived({ received }: Pick<PageState, "received">): void {
    for (const block of this.#blocks) {
      const slots = this.#sumsOf(block).slice();
      received[block.index]?.forEachClearRange((first, end) => {
        slots.fill(PAGE_TO_COME, first, end);
      });
      this.#files.write(sumsFile(block.index), new Uint8Array(slots.buffer));
    }
  }

  /** Every page is here: makes the files durable, and closes them. */
  finish(): ManifestBlock[] {
    return this.#blocks.map((block) => this.#finishBlock(block));
  }

  #finishBlock(block: RamBlock): ManifestBlock {
    const { files, sumFiles } = this.data;
    // Copied out: a file cannot be written from shared memory.
    const of = this.#sumsOf(block).slice();
    const fd = files[block.index] ?? -1;
    this.#files.sync(fd, ramFile(block.index));
    const zeros = punchZeroRuns(fd, of);
    this.#files.close(fd, ramFile(block.index));
    const bytes = new Uint8Array(of.buffer);
    this.#files.write(sumsFile(block.index), bytes);
    this.#files.close(sumFiles[block.index] ?? -1, sumsFile(block.index));
    return {
      name: block.name,
      length: block.length,
      pageSize: block.pageSize,
      file: ramFile(block.index),
      sums: sumsFile(block.index),
      sumsSha256: sha256(bytes),
      pagesStored: of.length - zeros,
    };
  }

  #sumsOf({ index, name }: RamBlock): Uint32Array {
    const shared = this.data.sums[index];
    if (shared === undefined) throw new Error(`no checksums for block ${name}`);
    return new Uint32Array(shared);
  }
}

function createSums(files: SnapshotFiles, { index, length }: RamBlock): number {
  const bytes = (length / TARGET_PAGE_SIZE) * SUM_BYTES;
  const fd = files.create(sumsFile(index), bytes);
  files.reserve(fd, sumsFile(index), 0, bytes, bytes);
  return fd;
}

/**
 * Gives the room back that was reserved for pages which then came as zeros, where it is worth it;
 * returns how many pages of zeros there are. A failure costs room, not contents.
 */
function punchZeroRuns(fd: number, sums: Uint32Array): number {
  let zeros = 0;
  forEachZeroRun(sums, (page, count) => {
    zeros += count;
    if (count < PUNCH_PAGES_MIN) return;
    punchHole(fd, page * TARGET_PAGE_SIZE, count * TARGET_PAGE_SIZE);
  });
  return zeros;
}
