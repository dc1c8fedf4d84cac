import { expect, test } from "bun:test";
import fc from "fast-check";
import { auditPages, auditShare, mergeAudits } from "../../../src/guests/stress/audit.ts";
import { describeMismatch, GuestMemoryError } from "../../../src/guests/stress/mismatch.ts";
import { fillPage } from "../../../src/guests/stress/pattern.ts";
import { createStressSetup, openStressWorld } from "../../../src/guests/stress/setup.ts";
import { SharedMemory } from "./shared-memory.ts";
import { MEBIBYTE, smallParameters } from "./stress-guest.ts";

/** A guest of 256 pages in 3 blocks, in which page p has version p and is right. */
function world() {
  const parameters = smallParameters({ size: MEBIBYTE, blocks: 3 });
  const memory = SharedMemory.allocate(parameters);
  const opened = openStressWorld(createStressSetup(parameters, memory.ranges), memory.view);
  for (let page = 0; page < opened.map.pages; page++) write(opened, page, page, page);
  return opened;
}

/** Puts another page's content at the place of `page`. */
function write(opened: ReturnType<typeof world>, page: number, as: number, version: number): void {
  opened.map.seek(page);
  fillPage(opened.pattern, opened.map.window, opened.map.word, as, version);
  opened.versions[page] = page;
}

test("finds nothing where all is right, in any number of shares", () => {
  const opened = world();
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), (shares) => {
      const results = Array.from({ length: shares }, (_, i) => auditShare(opened, i, shares));
      expect(mergeAudits(results)).toEqual({ pagesChecked: 256, pagesWrong: 0 });
    }),
    { numRuns: 20 },
  );
});

test("finds every spoilt page and says what is wrong with the first", () => {
  const opened = world();
  write(opened, 60, 60, 59);
  write(opened, 61, 60, 60);
  opened.map.seek(255);
  opened.map.window.words[opened.map.word + 1023]! ^= 0x8000_0000;
  const result = auditPages(opened, 0, 256);
  expect(result).toMatchObject({ pagesChecked: 256, pagesWrong: 3 });
  expect(result.first).toMatchObject({ page: 60, version: 60, holds: { page: 60, version: 59 } });
  expect(auditPages(opened, 61, 255)).toMatchObject({ pagesChecked: 194, pagesWrong: 1 });
  const halves = [auditShare(opened, 0, 2), auditShare(opened, 1, 2)];
  expect(mergeAudits(halves)).toEqual(result);
});

test("says in words what it found", () => {
  const mismatch = { page: 7, version: 9, wordIndex: 3, expected: 0xab, found: 1, zero: false };
  expect(describeMismatch(mismatch)).toBe(
    "page 7 should hold version 9 but word 3 is 0x00000001 instead of 0x000000ab",
  );
  expect(describeMismatch({ ...mismatch, holds: { page: 7, version: 8 } })).toBe(
    "page 7 should hold version 9 but holds version 8",
  );
  expect(describeMismatch({ ...mismatch, version: 0, holds: { page: 8, version: 2 } })).toBe(
    "page 7 should hold zeros, as it was never written, but holds page 8 in version 2",
  );
  expect(describeMismatch({ ...mismatch, version: 0x8000_0001 })).toStartWith(
    "page 7 should hold zeros, as it was discarded, but word 3",
  );
  expect(describeMismatch({ ...mismatch, zero: true })).toBe(
    "page 7 should hold version 9 but holds zeros",
  );
  const error = new GuestMemoryError("At the audit", mismatch);
  expect(error.code).toBe("GUEST_MEMORY_WRONG");
  expect(error.message).toStartWith("At the audit: page 7 should hold");
});
