/**
 * The version word of a page: what the page must hold, in 32 bits. It counts the writes and
 * discards of the page in its low 31 bits; the highest bit says that the last of them was a
 * discard. Word 0 is a page that was never touched. All words of a guest form one Uint32Array over
 * a SharedArrayBuffer, indexed by global page number and written by the page's owner only.
 */

const COUNTER_MASK = 0x7fff_ffff;
const DISCARDED_BIT = 0x8000_0000;

/** The word after one more write. The counter skips 0 when it wraps: 0 means never touched. */
export function versionAfterWrite(version: number): number {
  return (version + 1) & COUNTER_MASK || 1;
}

/** The word after one more discard. */
export function versionAfterDiscard(version: number): number {
  return (versionAfterWrite(version) | DISCARDED_BIT) >>> 0;
}

/** Whether the page must read as zeros. */
export function isZeroVersion(version: number): boolean {
  return version === 0 || version >= DISCARDED_BIT;
}
