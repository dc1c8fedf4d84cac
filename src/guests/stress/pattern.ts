/**
 * What a page of one version holds. Two parts:
 *
 *     words 0 and 1    the page number and the version word, scrambled (a bijection of 64 bits, so
 *                      no two pages or versions ever share them, and a wrong page tells whose it is)
 *     words 2 to 1023  a run of a pool of random words, which starts at a place that the page and
 *                      the version choose: pages and versions differ in nearly every word
 *
 * The pool exists so that a page is filled and checked by memmove and memcmp: a loop of 1024 words
 * takes five times as long. 65536 versions of a page in a row all start at different places, so a
 * page that is half old and half new is found as well. The pool is the same for all guests. A thread
 * makes it with its first pattern, as threads of other guests load this file as well; a guest's seed
 * chooses the scrambling and the places. A page that was never written, or was discarded, holds zeros.
 *
 * Hot: free functions, and Buffer methods that take offsets, because a view made for each page
 * would be garbage for each page.
 */
import { GENERATOR_WORDS, nextRandom, seedGenerator } from "./generator.ts";
import { mix32 } from "./mix.ts";
import { STRESS_PAGE_BYTES, STRESS_PAGE_WORDS } from "./parameters.ts";
import { isZeroVersion } from "./version.ts";

/** Places in the pool at which a page can start: a power of two. 256 KiB stay in a core's cache. */
const POOL_PLACES = 65_536;
/** Odd, so that counting versions visits every place of the pool before one comes again. */
const PLACE_STEP = 0x9e37_79b1;
const HEAD_WORDS = 2;
const HEAD_BYTES = HEAD_WORDS * 4;
/** The generator streams of the keys and of the pool; workers have the streams 0, 1, 2 and so on. */
const KEY_STREAM = -1;
const POOL_STREAM = -2;
const POOL_SEED = 0;
const ROUND_KEY = 0x7f4a_7c15;

const ZERO_PAGE = Buffer.from(new ArrayBuffer(STRESS_PAGE_BYTES));

/** This thread's, once it has one. */
let pool: PageWindow | undefined;

/** A stretch of guest memory, or any memory, as words and as bytes. */
export interface PageWindow {
  readonly words: Uint32Array;
  readonly bytes: Buffer;
}

/** The contents of all pages of a guest of one seed. One for each thread. */
export interface Pattern {
  readonly pageKey: number;
  readonly versionKey: number;
  readonly pool: PageWindow;
  /** Words 0 and 1 of the page that was last asked for: two results without an allocation. */
  first: number;
  second: number;
}

/** What a page was found to hold in whole. */
export interface PageIdentity {
  page: number;
  version: number;
}

/** The window over all of a buffer, whose length must be a multiple of the page size. */
export function pageWindow(buffer: ArrayBufferLike): PageWindow {
  if (buffer.byteLength % STRESS_PAGE_BYTES !== 0) {
    throw new RangeError(`a window of ${buffer.byteLength} bytes is not whole pages`);
  }
  return { words: new Uint32Array(buffer), bytes: Buffer.from(buffer) };
}

/** The page contents of a guest's seed. */
export function createPattern(seed: number): Pattern {
  const state = new Int32Array(GENERATOR_WORDS);
  seedGenerator(state, 0, seed, KEY_STREAM);
  const pageKey = nextRandom(state, 0) | 0;
  const versionKey = nextRandom(state, 0) | 0;
  return { pageKey, versionKey, pool: openPool(), first: 0, second: 0 };
}

/** Writes the page of `version` at words[word, word + 1024) of the window. */
export function fillPage(
  pattern: Pattern,
  window: PageWindow,
  word: number,
  page: number,
  version: number,
): void {
  const at = word * 4;
  if (isZeroVersion(version)) {
    window.bytes.fill(0, at, at + STRESS_PAGE_BYTES);
    return;
  }
  const place = poolPlace(pattern, page, version) * 4;
  pattern.pool.bytes.copy(
    window.bytes,
    at + HEAD_BYTES,
    place + HEAD_BYTES,
    place + STRESS_PAGE_BYTES,
  );
  scramble(pattern, page, version);
  window.words[word] = pattern.first;
  window.words[word + 1] = pattern.second;
}

/**
 * Compares all of words[word, word + 1024) with the page of `version`. Returns the index in the
 * page of the first wrong word, or -1 when the page is right.
 */
export function checkPage(
  pattern: Pattern,
  window: PageWindow,
  word: number,
  page: number,
  version: number,
): number {
  if (isZeroVersion(version)) return checkZeroPage(window, word);
  const { words, bytes } = window;
  scramble(pattern, page, version);
  if (words[word] !== pattern.first) return 0;
  if (words[word + 1] !== pattern.second) return 1;
  const place = poolPlace(pattern, page, version);
  const order = pattern.pool.bytes.compare(
    bytes,
    word * 4 + HEAD_BYTES,
    word * 4 + STRESS_PAGE_BYTES,
    place * 4 + HEAD_BYTES,
    place * 4 + STRESS_PAGE_BYTES,
  );
  if (order === 0) return -1;
  for (let index = HEAD_WORDS; index < STRESS_PAGE_WORDS; index++) {
    if (words[word + index] !== pattern.pool.words[place + index]) return index;
  }
  // Only when another thread repaired the page meanwhile: it was wrong, and nobody can say where.
  return HEAD_WORDS;
}

/** Like checkPage, for a page that must be all zeros. */
export function checkZeroPage(window: PageWindow, word: number): number {
  const at = word * 4;
  if (ZERO_PAGE.compare(window.bytes, at, at + STRESS_PAGE_BYTES) === 0) return -1;
  for (let index = 0; index < STRESS_PAGE_WORDS; index++) {
    if (window.words[word + index] !== 0) return index;
  }
  return 0;
}

/** Word `index` of the page of `version`: what a check expected there. */
export function expectedWord(
  pattern: Pattern,
  page: number,
  version: number,
  index: number,
): number {
  if (isZeroVersion(version)) return 0;
  scramble(pattern, page, version);
  if (index === 0) return pattern.first;
  if (index === 1) return pattern.second;
  return pattern.pool.words[poolPlace(pattern, page, version) + index]!;
}

/**
 * Whose page lies at words[word, word + 1024), when it is a whole page of this guest: the page and
 * the version that belong there, or a stale version, or another page. undefined when it is none,
 * as a torn page or zeros are. `pages` is the number of pages of the guest.
 */
export function identifyPage(
  pattern: Pattern,
  window: PageWindow,
  word: number,
  pages: number,
): PageIdentity | undefined {
  const left = window.words[word]!;
  const right = window.words[word + 1]! ^ mix32(left);
  const pageBits = left ^ mix32(right + ROUND_KEY);
  const page = (pageBits ^ pattern.pageKey) >>> 0;
  const version = (right ^ mix32(pageBits) ^ pattern.versionKey) >>> 0;
  if (page >= pages || isZeroVersion(version)) return undefined;
  return checkPage(pattern, window, word, page, version) === -1 ? { page, version } : undefined;
}

/** Puts words 0 and 1 into the pattern: three Feistel rounds over page number and version word. */
function scramble(pattern: Pattern, page: number, version: number): void {
  const pageBits = page ^ pattern.pageKey;
  const right = version ^ pattern.versionKey ^ mix32(pageBits);
  const left = pageBits ^ mix32(right + ROUND_KEY);
  pattern.first = left >>> 0;
  pattern.second = (right ^ mix32(left)) >>> 0;
}

/** The word of the pool at which the page of a version starts. */
function poolPlace(pattern: Pattern, page: number, version: number): number {
  return (mix32(page + pattern.versionKey) + Math.imul(version, PLACE_STEP)) & (POOL_PLACES - 1);
}

/** Makes the pool, unless this thread has it: that takes some milliseconds. */
export function openPool(): PageWindow {
  pool ??= createPool();
  return pool;
}

function createPool(): PageWindow {
  const words = new Uint32Array(new ArrayBuffer((POOL_PLACES + STRESS_PAGE_WORDS) * 4));
  const state = new Int32Array(GENERATOR_WORDS);
  seedGenerator(state, 0, POOL_SEED, POOL_STREAM);
  for (let index = 0; index < words.length; index++) words[index] = nextRandom(state, 0);
  return { words, bytes: Buffer.from(words.buffer) };
}
