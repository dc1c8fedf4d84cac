/**
 * XBZRLE: a page as its difference from what was sent of it before (QEMU's migration/xbzrle.c).
 * The payload is pairs of runs: how many bytes stay, how many change, and the changed bytes (the
 * new ones, not an XOR). Lengths are ULEB128 of at most two bytes. The first run may be 0, no other;
 * bytes that stay at the end of the page are not mentioned.
 *
 * It belongs to precopy alone: the receiver decodes over the page as it holds it, and after the
 * switch it holds none.
 */
import { refuse } from "./refuse.ts";

/** The byte before the length of every payload; there is one encoding (ENCODING_FLAG_XBZRLE). */
export const XBZRLE_ENCODING = 1;

/** The longest run that two bytes of seven bits can say. */
const RUN_MAX = 0x3fff;
const ONE_BYTE_RUN_MAX = 0x7f;

/**
 * Decodes the payload source[at, at + length) over `page`, which holds the old content. A payload
 * that is not valid is refused, and leaves the page partly changed; `base` is the stream offset of
 * source[0].
 */
export function decodeXbzrle(
  source: Uint8Array,
  at: number,
  length: number,
  page: Uint8Array,
  base = 0,
): void {
  const end = at + length;
  let from = at;
  let to = 0;
  let changes = false;
  // Runs alternate: bytes that stay, then bytes that change, which lie behind their run's length.
  while (from < end) {
    const runAt = from;
    const first = source[from++] ?? 0;
    let run = first;
    if (first > ONE_BYTE_RUN_MAX) {
      const second = from < end ? (source[from++] ?? 0) : 0xff;
      if (second > ONE_BYTE_RUN_MAX) refuseRun("has a length that does not end", base + runAt);
      run = (first & ONE_BYTE_RUN_MAX) | (second << 7);
    }
    if (run === 0 && runAt !== at) refuseRun("has a run of no bytes", base + runAt);
    if (run > page.length - to) refuseRun("goes beyond the page", base + runAt);
    if (changes) {
      if (run > end - from) refuseRun("ends within its changed bytes", base + runAt);
      for (let i = 0; i < run; i++) page[to + i] = source[from + i] ?? 0;
      from += run;
    }
    to += run;
    changes = !changes;
  }
  // Every run of bytes that stay is followed by one that changes.
  if (changes) refuseRun("ends after bytes that stay", base + end);
}

function refuseRun(problem: string, offset: number): never {
  refuse("BAD_PAGE", `An XBZRLE page ${problem}`, offset);
}

/**
 * Encodes how `page` differs from `old` (equally long) into `out` and returns the bytes written: 0
 * if they are the same, and -1 if the difference does not fit `out` (send the page plain then).
 */
export function encodeXbzrle(old: Uint8Array, page: Uint8Array, out: Uint8Array): number {
  const size = page.length;
  let from = 0;
  let to = 0;
  for (;;) {
    const stayAt = from;
    while (from < size && page[from] === old[from]) from++;
    if (from === size) return to;
    const changeAt = from;
    while (from < size && page[from] !== old[from]) from++;
    const stays = changeAt - stayAt;
    const changes = from - changeAt;
    // Target pages above 16 KiB can have runs that the format has no number for.
    if (stays > RUN_MAX || changes > RUN_MAX) return -1;
    if (out.length - to < runBytes(stays) + runBytes(changes) + changes) return -1;
    to = putRun(out, to, stays);
    to = putRun(out, to, changes);
    for (let i = 0; i < changes; i++) out[to + i] = page[changeAt + i] ?? 0;
    to += changes;
  }
}

function runBytes(run: number): number {
  return run > ONE_BYTE_RUN_MAX ? 2 : 1;
}

function putRun(out: Uint8Array, at: number, run: number): number {
  if (run <= ONE_BYTE_RUN_MAX) {
    out[at] = run;
    return at + 1;
  }
  out[at] = (run & ONE_BYTE_RUN_MAX) | 0x80;
  out[at + 1] = run >>> 7;
  return at + 2;
}
