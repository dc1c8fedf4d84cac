/**
 * What a process keeps of every page of a guest: bits, times, places, checksums. How much memory a
 * guest has is a number that somebody else says, so it is looked at before room is made for them.
 */
import { readFileSync } from "node:fs";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { HostError } from "../util/errors.ts";
import { formatBytes } from "../util/units.ts";

/** Longest shared buffer that the engine makes; a table is one a block. */
const TABLE_BYTES_MAX = 2 ** 32;
/** What may be taken of the memory that this host has to spare. */
const SHARE_MAX = 0.5;

/** Bytes of memory that this host can give without ending somebody; Infinity where it does not say. */
export function availableBytes(): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "latin1"));
  return match === null ? Infinity : Number(match[1]) * 1024;
}

/**
 * Makes sure that there is room for tables of `bytesAPage` bytes a page, of which one has at most
 * eight. @throws HostError NO_MEMORY for a guest that is too large for this host.
 */
export function checkTables(blocks: readonly { length: number }[], bytesAPage: number): void {
  const total = blocks.reduce((sum, { length }) => sum + length, 0);
  const largest = blocks.reduce((most, { length }) => Math.max(most, length), 0);
  const needed = (total / TARGET_PAGE_SIZE) * bytesAPage;
  const isTooLong = (largest / TARGET_PAGE_SIZE) * Math.min(8, bytesAPage) > TABLE_BYTES_MAX;
  const available = availableBytes();
  if (!isTooLong && needed <= available * SHARE_MAX) return;
  const what = `A guest of ${formatBytes(total)} takes tables of ${formatBytes(needed)} here`;
  throw new HostError("NO_MEMORY", `${what}, and the host has ${formatBytes(available)}`, {
    hint: "if the guest is as large as that, it takes a host with more memory",
  });
}
