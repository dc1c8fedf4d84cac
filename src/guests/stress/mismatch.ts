/** A page that does not hold what its version says: the one thing the stress guest looks for. */
import { PostcopyError } from "../../util/errors.ts";
import {
  checkZeroPage,
  expectedWord,
  identifyPage,
  type PageIdentity,
  type Pattern,
} from "./pattern.ts";
import type { PageMap } from "./page-map.ts";
import { isZeroVersion } from "./version.ts";

/** What was found instead of the right page. */
export interface PageMismatch {
  /** Global page number. */
  page: number;
  /** The version word that the page should have. */
  version: number;
  /** Index in the page of the first wrong 32-bit word, what should stand there and what does. */
  wordIndex: number;
  expected: number;
  found: number;
  /** Whether the page holds zeros only. */
  zero: boolean;
  /** The page and version that it holds in whole, if it is one of this guest's. */
  holds?: PageIdentity;
}

/** The guest's memory is not what it must be: the migration lost, repeated or tore a page. */
export class GuestMemoryError extends PostcopyError {
  readonly mismatch: PageMismatch;

  constructor(where: string, mismatch: PageMismatch) {
    super("GUEST_MEMORY_WRONG", `${where}: ${describeMismatch(mismatch)}`, {
      hint: "the guest cannot be trusted any more; please report this with the seed and both logs",
    });
    this.mismatch = mismatch;
  }
}

/** Looks closely at the page that `map` stands at, after a check found `wordIndex` wrong. */
export function examineMismatch(
  pattern: Pattern,
  map: PageMap,
  page: number,
  version: number,
  wordIndex: number,
): PageMismatch {
  const { window, word } = map;
  const mismatch: PageMismatch = {
    page,
    version,
    wordIndex,
    expected: expectedWord(pattern, page, version, wordIndex),
    found: window.words[word + wordIndex]!,
    zero: checkZeroPage(window, word) === -1,
  };
  const holds = identifyPage(pattern, window, word, map.pages);
  if (holds !== undefined) mismatch.holds = holds;
  return mismatch;
}

/** One sentence for people, without a full stop. */
export function describeMismatch(mismatch: PageMismatch): string {
  const { page, version, wordIndex, expected, found } = mismatch;
  const should = `page ${page} should hold ${describeVersion(version)}`;
  if (mismatch.zero) return `${should} but holds zeros`;
  const { holds } = mismatch;
  if (holds === undefined || (holds.page === page && holds.version === version)) {
    return `${should} but word ${wordIndex} is ${hex(found)} instead of ${hex(expected)}`;
  }
  if (holds.page !== page) {
    return `${should} but holds page ${holds.page} in ${describeVersion(holds.version)}`;
  }
  return `${should} but holds ${describeVersion(holds.version)}`;
}

function describeVersion(version: number): string {
  if (version === 0) return "zeros, as it was never written,";
  if (isZeroVersion(version)) return "zeros, as it was discarded,";
  return `version ${version}`;
}

function hex(word: number): string {
  return `0x${word.toString(16).padStart(8, "0")}`;
}
