/**
 * Judges the memory of the boot-sector guest (`boot-sector.ts`). The guest runs through its pages
 * upwards and adds one to the first byte of each, so at any instant the first bytes are all equal,
 * or fall by exactly one at exactly one place: where the guest is. A page that was lost, repeated,
 * stale or swapped in a migration shows as a second step or a higher one.
 */
import { GUEST_PAGE_BYTES } from "./boot-sector.ts";

/** The state of the count: `value` in the pages below `position`, `value - 1` (mod 256) above. */
export interface Count {
  /** The first byte of the first page. */
  value: number;
  /** Index of the first page that the guest has not reached in this round; 1 to the page count. */
  position: number;
  pages: number;
}

/** Wrong pages named in one error message. */
const SHOWN_LIMIT = 8;

/**
 * The count that `memory` (the whole range the guest counts in, taken while it stood still) holds.
 * Throws an Error that lists the first wrong pages if no run of the guest can have left it so.
 */
export function checkPattern(memory: Uint8Array): Count {
  if (memory.length === 0 || memory.length % GUEST_PAGE_BYTES !== 0) {
    throw new RangeError(`${memory.length} bytes are not whole pages`);
  }
  const pages = memory.length / GUEST_PAGE_BYTES;
  const value = memory[0] ?? 0;
  const before = (value - 1) & 0xff;
  let position = pages;
  const wrong: string[] = [];
  for (let page = 0; page < pages; page++) {
    const first = memory[page * GUEST_PAGE_BYTES] ?? 0;
    if (position === pages && first === before) position = page;
    const expected = page < position ? value : before;
    if (first !== expected) wrong.push(`page ${page} begins with ${first}, not ${expected}`);
    const start = page * GUEST_PAGE_BYTES;
    const stray = firstNonZero(memory.subarray(start + 1, start + GUEST_PAGE_BYTES));
    if (stray !== undefined) wrong.push(`page ${page} is not zero at byte ${stray + 1}`);
  }
  if (wrong.length > 0) {
    const shown = wrong.slice(0, SHOWN_LIMIT).join("\n  ");
    throw new Error(`${wrong.length} faults in ${pages} pages of the guest's memory:\n  ${shown}`);
  }
  return { value, position, pages };
}

/** What of a page lies behind the byte that the guest counts in. */
const ZEROS = new Uint8Array(GUEST_PAGE_BYTES - 1);

/** Index of the first byte of `bytes` that is not zero, if any; quick where all are. */
function firstNonZero(bytes: Uint8Array): number | undefined {
  if (Buffer.compare(bytes, ZEROS) === 0) return undefined;
  return bytes.findIndex((byte) => byte !== 0);
}

/** Whether the guest has run between two counts of the same memory. */
export function hasCountedOn(earlier: Count, later: Count): boolean {
  return earlier.value !== later.value || earlier.position !== later.position;
}
