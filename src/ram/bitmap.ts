/**
 * One bit a page, shared between threads: dirty, owed, received, removed. Every change is atomic,
 * so a page that two threads want is claimed by exactly one. Bit i of word w is page 32 w + i,
 * which is also the byte order of QEMU's received bitmap on the wire.
 */

import { attachBytes } from "./shared-bytes.ts";
import type { SharedBytes } from "./shared-bytes.ts";

const ALL = -1;

/** Bytes of a bitmap: whole u64 words, as the wire wants them. */
export function bitmapBytes(pages: number): number {
  return Math.ceil(pages / 64) * 8;
}

export class PageBitmap {
  readonly #memory: SharedBytes;
  readonly pages: number;
  readonly words: Int32Array;

  /** All bits clear, or a view of a bitmap made elsewhere. */
  constructor(pages: number, shared?: SharedBytes) {
    this.pages = pages;
    this.#memory = shared ?? new SharedArrayBuffer(bitmapBytes(pages));
    this.words = new Int32Array(attachBytes(this.#memory));
  }

  /**
   * Its memory, shared with other threads by message; each makes a PageBitmap of its own over it. Of
   * one over mapped memory whoever mapped that has it.
   */
  get shared(): SharedArrayBuffer {
    if ("address" in this.#memory) throw new Error("the bits lie in mapped memory");
    return this.#memory;
  }

  /** Its bytes, which are those of QEMU's received bitmap. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.words.buffer);
  }

  test(page: number): boolean {
    return ((Atomics.load(this.words, page >>> 5) >>> (page & 31)) & 1) !== 0;
  }

  /** Sets a bit; returns whether it was clear before. */
  set(page: number): boolean {
    const bit = 1 << (page & 31);
    return (Atomics.or(this.words, page >>> 5, bit) & bit) === 0;
  }

  /** Clears a bit; returns whether it was set before: true for exactly one of several threads. */
  claim(page: number): boolean {
    const bit = 1 << (page & 31);
    return (Atomics.and(this.words, page >>> 5, ~bit) & bit) !== 0;
  }

  /**
   * Clears the bits from `from` on, as far as they are set and `end` allows; returns how many those
   * are. All of them were set: each is this caller's alone.
   */
  claimRun(from: number, end = this.pages): number {
    let page = from;
    while (page < end) {
      const next = Math.min(end, (page | 31) + 1);
      const ones = this.#claimInWord(page, next);
      page += ones;
      if (page < next) break;
    }
    return page - from;
  }

  /** The same for pages of one word. */
  #claimInWord(from: number, end: number): number {
    const word = from >>> 5;
    const shift = from & 31;
    for (;;) {
      const old = Atomics.load(this.words, word);
      const ones = Math.min(lowestBit32(~(old >>> shift)), end - from);
      if (ones === 0) return 0;
      const mask = (ALL >>> (32 - ones)) << shift;
      if (Atomics.compareExchange(this.words, word, old, old & ~mask) === old) return ones;
    }
  }

  /** Sets the bits of [first, first + count); returns how many were clear before. */
  setRunCounting(first: number, count: number): number {
    const end = first + count;
    let fresh = 0;
    for (let page = first; page < end;) {
      const next = Math.min(end, (page | 31) + 1);
      const mask = (ALL >>> (32 - (next - page))) << (page & 31);
      const old = Atomics.or(this.words, page >>> 5, mask);
      fresh += old === 0 ? next - page : popCount(mask & ~old);
      page = next;
    }
    return fresh;
  }

  /** Sets the bits of [first, first + count). */
  setRange(first: number, count: number): void {
    this.#range(first, count, ALL);
  }

  /** Clears the bits of [first, first + count). */
  clearRange(first: number, count: number): void {
    this.#range(first, count, 0);
  }

  /**
   * A word that lies in the range as a whole is stored, which never tears: what another thread does
   * to it comes before or after. These lie between two atomic changes, which order them. A loop of
   * atomic changes, run once for 8 GiB before any of it is compiled, would hold the guest for
   * milliseconds.
   */
  #range(first: number, count: number, value: number): void {
    if (count <= 0) return;
    const end = first + count;
    const head = first >>> 5;
    const tail = (end - 1) >>> 5;
    const fromFirst = ALL << (first & 31);
    const toEnd = ALL >>> (31 - ((end - 1) & 31));
    if (head === tail) return this.#change(head, fromFirst & toEnd, value);
    this.#change(head, fromFirst, value);
    this.words.fill(value, head + 1, tail);
    this.#change(tail, toEnd, value);
  }

  #change(word: number, mask: number, value: number): void {
    if (value === 0) Atomics.and(this.words, word, ~mask);
    else Atomics.or(this.words, word, mask);
  }

  setAll(): void {
    this.setRange(0, this.pages);
  }

  /** Number of set bits. */
  count(): number {
    return this.countRange(0, this.words.length * 32);
  }

  /** Number of set bits in [first, first + count). */
  countRange(first: number, count: number): number {
    if (count <= 0) return 0;
    const end = first + count;
    const head = first >>> 5;
    const tail = (end - 1) >>> 5;
    const fromFirst = ALL << (first & 31);
    const toEnd = ALL >>> (31 - ((end - 1) & 31));
    if (head === tail) return popCount((this.words[head] ?? 0) & fromFirst & toEnd);
    let sum = popCount((this.words[head] ?? 0) & fromFirst);
    for (let word = head + 1; word < tail; word++) sum += popCount(this.words[word] ?? 0);
    return sum + popCount((this.words[tail] ?? 0) & toEnd);
  }

  /** First set bit in [from, end), or -1. */
  nextSet(from: number, end = this.pages): number {
    let page = from;
    while (page < end) {
      const word = Atomics.load(this.words, page >>> 5) >>> (page & 31);
      if (word !== 0) {
        const found = page + lowestBit(word);
        return found < end ? found : -1;
      }
      page = (page | 31) + 1;
    }
    return -1;
  }

  /** First clear bit in [from, end), or `end`. */
  nextClear(from: number, end = this.pages): number {
    let page = from;
    while (page < end) {
      const word = ~Atomics.load(this.words, page >>> 5) >>> (page & 31);
      if (word !== 0) return Math.min(end, page + lowestBit(word));
      page = (page | 31) + 1;
    }
    return end;
  }

  /** Hands each contiguous range [first, end) of clear bits to `take`, in order. */
  forEachClearRange(take: (first: number, end: number) => void): void {
    for (let first = this.nextClear(0); first < this.pages;) {
      const next = this.nextSet(first);
      const end = next < 0 ? this.pages : next;
      take(first, end);
      first = this.nextClear(end);
    }
  }

  /** Hands each contiguous range of set bits to `take`, in order. */
  forEachRange(take: (first: number, count: number) => void): void {
    for (let first = this.nextSet(0); first >= 0;) {
      const end = this.nextClear(first);
      take(first, end - first);
      first = end < this.pages ? this.nextSet(end) : -1;
    }
  }
}

/** Number of set bits of a 32-bit word. */
export function popCount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Index of the lowest set bit of a word; 32 if it is 0. */
function lowestBit32(word: number): number {
  return word === 0 ? 32 : lowestBit(word);
}

/** Index of the lowest set bit of a word that is not 0. */
export function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
