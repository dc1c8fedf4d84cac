/** Which pages of a block have arrived, as far as its files say: see arrival.ts. */
import { dropCached } from "../../../syscalls/fadvise.ts";
import { readAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { PageBitmap } from "../../ram/bitmap.ts";
import type { RamBlock } from "../../ram/block.ts";
import { targetPages } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { pageSum } from "../stored/page-sum.ts";
import { PAGE_TO_COME } from "./arrival.ts";
import type { SnapshotFiles } from "./files.ts";
import { ramFile, sumsFile } from "./layout.ts";
import { storeError } from "./store-error.ts";

/** Bytes of memory that are read at once. */
const STEP_BYTES = 1024 * 1024;

/** What is here of a block. */
export interface ArrivedPages {
  /** Descriptors of its pages and of their checksums. */
  file: number;
  sumFile: number;
  /** Checksums of what the file holds now, whether that has arrived or is to be replaced. */
  sums: SharedArrayBuffer;
  received: PageBitmap;
}

/**
 * Reads all of a block. What is compared is what the disk holds: after an error of fsync(2) the page
 * cache may show what was never written. @throws PostcopyError CANNOT_STORE, NO_SPACE.
 */
export function readArrivedPages(files: SnapshotFiles, block: RamBlock): ArrivedPages {
  const [name, sumsName] = [ramFile(block.index), sumsFile(block.index)];
  const file = files.reopen(name, block.length);
  const pages = targetPages(block);
  const slots = new Uint32Array(pages);
  const sumFile = files.reopen(sumsName, slots.byteLength);
  for (const [fd, of] of [
    [file, name],
    [sumFile, sumsName],
  ] as const) {
    files.sync(fd, of);
    dropCached(fd);
  }
  files.read(sumFile, sumsName, new Uint8Array(slots.buffer));
  const sums = new SharedArrayBuffer(slots.byteLength);
  const now = new Uint32Array(sums);
  sumPages(files.directory, name, file, now);
  const received = new PageBitmap(pages);
  for (let page = 0; page < pages; page++) {
    if (slots[page] !== PAGE_TO_COME && slots[page] === now[page]) received.set(page);
  }
  return { file, sumFile, sums, received };
}

/** The checksum of each page of a file. */
function sumPages(directory: string, name: string, fd: number, sums: Uint32Array): void {
  const { address, bytes } = mapScratch(STEP_BYTES);
  const end = sums.length * TARGET_PAGE_SIZE;
  for (let at = 0; at < end; at += STEP_BYTES) {
    const wanted = Math.min(STEP_BYTES, end - at);
    const got = readAt(fd, address, wanted, at);
    if (got !== wanted) {
      throw storeError(directory, name, "pread", Math.max(0, -got), `, ${wanted} bytes at ${at}`);
    }
    for (let from = 0; from < wanted; from += TARGET_PAGE_SIZE) {
      const page = bytes.subarray(from, from + TARGET_PAGE_SIZE);
      sums[(at + from) / TARGET_PAGE_SIZE] = pageSum(page);
    }
  }
}
