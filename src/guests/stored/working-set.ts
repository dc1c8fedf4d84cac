/**
 * The recorded working set: which pages the guest asked for when it was restored, how often, and in
 * which order. It lies beside what was kept and is no part of it: without it, or with a damaged one,
 * all that is lost is the knowledge of what the guest needs first.
 *
 *     u32 "PCWS"  u32 version  u32 pages of the guest  u32 entries  u32 CRC-32 of the entries
 *     u32 target page, counted over all blocks   u32 restores in which it was asked for
 *
 * Numbers are little-endian. Entries stand in the order in which they are worth sending: what was
 * asked for in more restores first, then what was asked for earlier. A page that was sent ahead is
 * asked for no more and keeps its number.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import type { RamBlock } from "../../ram/block.ts";
import { totalPages } from "../../ram/block.ts";
import { readRegular } from "../../util/files.ts";

const MAGIC = 0x5357_4350;
const VERSION = 2;
const HEADER_WORDS = 5;
const ENTRY_WORDS = 2;
const MODE = 0o600;
/** Most pages that are kept: 4 GiB of pages of 4 KiB. */
const ENTRIES_MAX = 2 ** 20;

/** Target pages, counted over all blocks, in the order in which they are sent. */
interface WorkingSet {
  pages: Uint32Array;
  /** In how many restores each of them was asked for. */
  restores: Uint32Array;
}

/**
 * Adds the pages that one restore asked for, in the order of their first request, to those that are
 * recorded in the file `path`. An error is the caller's to judge: a guest on read-only media is none
 * the worse without.
 */
export function recordRequests(
  path: string,
  blocks: readonly RamBlock[],
  requests: Uint32Array,
): void {
  const before = read(path, blocks);
  const merged = merge(typeof before === "object" ? before : emptySet(), requests);
  const { pages, restores } = merged;
  const words = new Uint32Array(HEADER_WORDS + ENTRY_WORDS * pages.length);
  const entries = words.subarray(HEADER_WORDS);
  for (let i = 0; i < pages.length; i++) {
    entries[ENTRY_WORDS * i] = pages[i] ?? 0;
    entries[ENTRY_WORDS * i + 1] = restores[i] ?? 0;
  }
  words.set([MAGIC, VERSION, totalPages(blocks), pages.length, Bun.hash.crc32(entries)]);
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

/**
 * The recorded pages, what is worth most first; undefined where none are recorded, "damaged" where
 * the file is not right.
 */
export function readWorkingSet(
  path: string,
  blocks: readonly RamBlock[],
): Uint32Array | undefined | "damaged" {
  const recorded = read(path, blocks);
  return typeof recorded === "object" ? recorded.pages : recorded;
}

function emptySet(): WorkingSet {
  return { pages: new Uint32Array(), restores: new Uint32Array() };
}

function merge({ pages, restores }: WorkingSet, requests: Uint32Array): WorkingSet {
  const times = new Map<number, number>();
  pages.forEach((page, i) => times.set(page, restores[i] ?? 0));
  for (const page of new Set(requests)) times.set(page, (times.get(page) ?? 0) + 1);
  // Sorting keeps the order of equals: that of the record, then that of these requests.
  const entries = [...times].sort(([, a], [, b]) => b - a).slice(0, ENTRIES_MAX);
  return {
    pages: Uint32Array.from(entries, ([page]) => page),
    restores: Uint32Array.from(entries, ([, count]) => count),
  };
}

function read(path: string, blocks: readonly RamBlock[]): WorkingSet | undefined | "damaged" {
  let bytes: Uint8Array;
  try {
    const bytesMax = 4 * (HEADER_WORDS + ENTRY_WORDS * totalPages(blocks));
    bytes = readRegular(path, bytesMax);
  } catch (error) {
    const absent = error instanceof Error && "code" in error && error.code === "ENOENT";
    return absent ? undefined : "damaged";
  }
  if (bytes.length % 4 !== 0 || bytes.length < HEADER_WORDS * 4) return "damaged";
  const words = new Uint32Array(bytes.slice().buffer);
  const entries = words.subarray(HEADER_WORDS);
  const [magic, version, total = 0, count = 0, sum] = words;
  const whole = magic === MAGIC && version === VERSION && entries.length === ENTRY_WORDS * count;
  if (!whole || sum !== Bun.hash.crc32(entries) || total !== totalPages(blocks)) return "damaged";
  const pages = Uint32Array.from({ length: count }, (_, i) => entries[ENTRY_WORDS * i] ?? 0);
  const restores = Uint32Array.from({ length: count }, (_, i) => entries[ENTRY_WORDS * i + 1] ?? 0);
  return pages.every((page) => page < total) ? { pages, restores } : "damaged";
}
