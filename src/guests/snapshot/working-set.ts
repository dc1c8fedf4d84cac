/**
 * The recorded working set: which pages the guest asked for when it was last restored, and in which
 * order. It lies beside the snapshot and is no part of it: without it, or with a damaged one, all
 * that is lost is the knowledge of when the guest has what it needs first.
 *
 *     u32 "PCWS"  u32 version  u32 pages of the guest  u32 entries  u32 CRC-32 of the entries
 *     u32 target page, counted over all blocks, in the order of the first request; each once
 *
 * Numbers are little-endian.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RamBlock } from "../../ram/block.ts";
import { totalPages } from "../../ram/block.ts";
import { readRegular } from "../../util/files.ts";

export const WORKING_SET_FILE = "working-set.bin";

const MAGIC = 0x5357_4350;
const VERSION = 1;
const HEADER_WORDS = 5;
const MODE = 0o600;

/**
 * Writes the pages in order of their first request, without repeats. An error is the caller's to
 * judge: a snapshot on read-only media is none the worse without.
 */
export function writeWorkingSet(
  directory: string,
  blocks: readonly RamBlock[],
  requests: Uint32Array,
): void {
  const pages = new Uint32Array(new Set(requests));
  const words = new Uint32Array(HEADER_WORDS + pages.length);
  words.set([MAGIC, VERSION, totalPages(blocks), pages.length, crcOf(pages)]);
  words.set(pages, HEADER_WORDS);
  const path = join(directory, WORKING_SET_FILE);
  // Several restores may end at once; each replaces the file as a whole.
  const draft = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(draft, words, { mode: MODE });
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}

/** The recorded pages; undefined where none are recorded, "damaged" where the file is not right. */
export function readWorkingSet(
  directory: string,
  blocks: readonly RamBlock[],
): Uint32Array | undefined | "damaged" {
  let bytes: Uint8Array;
  try {
    const bytesMax = 4 * (HEADER_WORDS + totalPages(blocks));
    bytes = readRegular(join(directory, WORKING_SET_FILE), bytesMax);
  } catch (error) {
    const absent = error instanceof Error && "code" in error && error.code === "ENOENT";
    return absent ? undefined : "damaged";
  }
  if (bytes.length % 4 !== 0 || bytes.length < HEADER_WORDS * 4) return "damaged";
  const words = new Uint32Array(bytes.slice().buffer);
  const pages = words.subarray(HEADER_WORDS);
  const [magic, version, total = 0, count, sum] = words;
  const whole = magic === MAGIC && version === VERSION && count === pages.length;
  if (!whole || sum !== crcOf(pages) || total !== totalPages(blocks)) return "damaged";
  return pages.every((page) => page < total) ? pages : "damaged";
}

function crcOf(pages: Uint32Array): number {
  return Bun.hash.crc32(pages);
}
