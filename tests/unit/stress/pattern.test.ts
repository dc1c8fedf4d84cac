import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  checkPage,
  checkZeroPage,
  createPattern,
  expectedWord,
  fillPage,
  identifyPage,
  pageWindow,
} from "../../../src/guests/stress/pattern.ts";
import { STRESS_PAGE_WORDS } from "../../../src/guests/stress/parameters.ts";
import { versionAfterDiscard } from "../../../src/guests/stress/version.ts";

const PAGES = 1 << 20;
const pattern = createPattern(1);
const page = fc.nat(PAGES - 1);
const version = fc.integer({ min: 1, max: 0x7fff_ffff });
const wordIndex = fc.nat(STRESS_PAGE_WORDS - 1);

/** Four pages of memory; the middle ones are used, so that a write too far is seen. */
function fourPages() {
  return pageWindow(new SharedArrayBuffer(4 * 4096));
}
const AT = STRESS_PAGE_WORDS;

function filled(pageNumber: number, versionWord: number) {
  const window = fourPages();
  fillPage(pattern, window, AT, pageNumber, versionWord);
  return window;
}

describe("a filled page", () => {
  test("is right, word by word, and touches nothing beside it", () => {
    fc.assert(
      fc.property(page, version, (number, word) => {
        const window = filled(number, word);
        expect(checkPage(pattern, window, AT, number, word)).toBe(-1);
        for (let index = 0; index < STRESS_PAGE_WORDS; index++) {
          expect(window.words[AT + index]).toBe(expectedWord(pattern, number, word, index));
        }
        expect(checkZeroPage(window, 0)).toBe(-1);
        expect(checkZeroPage(window, 2 * STRESS_PAGE_WORDS)).toBe(-1);
      }),
      { numRuns: 30 },
    );
  });

  test("with one flipped bit anywhere is wrong in that word", () => {
    fc.assert(
      fc.property(page, version, wordIndex, fc.nat(31), (number, word, index, bit) => {
        const window = filled(number, word);
        window.words[AT + index]! ^= 1 << bit;
        expect(checkPage(pattern, window, AT, number, word)).toBe(index);
      }),
      { numRuns: 2000 },
    );
  });

  test("of any other version is wrong", () => {
    fc.assert(
      fc.property(page, version, version, (number, word, other) => {
        fc.pre(word !== other);
        expect(checkPage(pattern, filled(number, other), AT, number, word)).not.toBe(-1);
      }),
      { numRuns: 1000 },
    );
  });

  test("of any other page is wrong", () => {
    fc.assert(
      fc.property(page, page, version, (number, other, word) => {
        fc.pre(number !== other);
        expect(checkPage(pattern, filled(other, word), AT, number, word)).not.toBe(-1);
      }),
      { numRuns: 1000 },
    );
  });

  test("that is half new and half old is wrong where the old half begins", () => {
    fc.assert(
      fc.property(page, version, fc.integer({ min: 1, max: 1023 }), (number, word, cut) => {
        fc.pre(word > 1);
        const window = filled(number, word);
        const stale = filled(number, word - 1).words.subarray(AT + cut, AT + STRESS_PAGE_WORDS);
        window.words.set(stale, AT + cut);
        expect(checkPage(pattern, window, AT, number, word)).toBe(cut);
      }),
      { numRuns: 500 },
    );
  });

  test("of another seed is wrong", () => {
    const other = createPattern(2);
    expect(checkPage(other, filled(5, 3), AT, 5, 3)).toBe(0);
  });

  test("differs from other versions and pages in nearly every word", () => {
    fc.assert(
      fc.property(page, page, version, (number, other, word) => {
        const base = filled(number, word).words;
        const rivals = [filled(number, word + 1 > 0x7fff_ffff ? 1 : word + 1)];
        if (other !== number) rivals.push(filled(other, word));
        for (const rival of rivals) {
          const same = base.filter((value, at) => at >= AT && value === rival.words[at]);
          // The page after it is zeros in both.
          expect(same.length - 2 * STRESS_PAGE_WORDS).toBeLessThan(3);
        }
      }),
      { numRuns: 100 },
    );
  });

  test("never changes between versions of the program", () => {
    const bytes = filled(5, 3).bytes.subarray(4096, 8192);
    expect(Bun.hash.xxHash32(bytes)).toBe(2_676_196_603);
  });
});

describe("a zero page", () => {
  test.each([0, versionAfterDiscard(0), versionAfterDiscard(41)])("of version %d", (word) => {
    const window = filled(9, 7);
    expect(checkPage(pattern, window, AT, 9, word)).toBe(0);
    fillPage(pattern, window, AT, 9, word);
    expect(checkPage(pattern, window, AT, 9, word)).toBe(-1);
    expect(expectedWord(pattern, 9, word, 0)).toBe(0);
    window.words[AT + 1023] = 0x8000_0000;
    expect(checkPage(pattern, window, AT, 9, word)).toBe(1023);
  });

  test("in place of a written one is wrong from the first word", () => {
    expect(checkPage(pattern, fourPages(), AT, 9, 7)).toBe(0);
  });
});

describe("identifying a page", () => {
  test("names any page and version that lies there in whole", () => {
    fc.assert(
      fc.property(page, version, (number, word) => {
        const identity = identifyPage(pattern, filled(number, word), AT, PAGES);
        expect(identity).toEqual({ page: number, version: word });
      }),
    );
  });

  test("names none for zeros, a torn page and a page beyond the guest", () => {
    expect(identifyPage(pattern, fourPages(), AT, PAGES)).toBeUndefined();
    const torn = filled(4, 4);
    torn.words[AT + 512]! ^= 1;
    expect(identifyPage(pattern, torn, AT, PAGES)).toBeUndefined();
    expect(identifyPage(pattern, filled(4, 4), AT, 4)).toBeUndefined();
  });
});

test("a window must be whole pages", () => {
  expect(() => pageWindow(new SharedArrayBuffer(4095))).toThrow(RangeError);
});
