/** The judge of the boot-sector guest's memory: it accepts what the guest can leave, nothing else. */
import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import { GUEST_PAGE_BYTES } from "../../helpers/boot-sector.ts";
import { checkPattern, hasCountedOn } from "../../helpers/memory-pattern.ts";

/** Memory of `pages` pages in which the guest has written `value` to the first `position`. */
function memoryAt(pages: number, value: number, position: number): Uint8Array {
  const memory = new Uint8Array(pages * GUEST_PAGE_BYTES);
  for (let page = 0; page < pages; page++) {
    memory[page * GUEST_PAGE_BYTES] = page < position ? value : value - 1;
  }
  return memory;
}

const PAGES = 12;
const state = fc.record({
  value: fc.integer({ min: 0, max: 255 }),
  position: fc.integer({ min: 1, max: PAGES }),
});

describe("checkPattern", () => {
  test("reads the count wherever the guest stands, across the wrap of the byte", () => {
    fc.assert(
      fc.property(state, ({ value, position }) => {
        const memory = memoryAt(PAGES, value, position);
        expect(checkPattern(memory)).toEqual({ value, position, pages: PAGES });
      }),
    );
  });

  test("refuses memory with one wrong byte anywhere", () => {
    const byte = fc.integer({ min: 0, max: PAGES * GUEST_PAGE_BYTES - 1 });
    fc.assert(
      fc.property(state, byte, fc.integer({ min: 2, max: 254 }), (at, index, change) => {
        const memory = memoryAt(PAGES, at.value, at.position);
        // A change of the first byte by one, up or down, can look like another state.
        memory[index] = (memory[index] ?? 0) + change;
        expect(() => checkPattern(memory)).toThrow("faults in 12 pages");
      }),
    );
  });

  test("refuses a page that lags or runs ahead of its neighbours by one", () => {
    const stale = memoryAt(PAGES, 7, PAGES);
    stale[5 * GUEST_PAGE_BYTES] = 6;
    expect(() => checkPattern(stale)).toThrow("page 6 begins with 7, not 6");
    const early = memoryAt(PAGES, 7, 3);
    early[9 * GUEST_PAGE_BYTES] = 7;
    expect(() => checkPattern(early)).toThrow("page 9 begins with 7, not 6");
  });

  test("names the page and the byte of what should be zero", () => {
    const memory = memoryAt(PAGES, 7, 3);
    memory[4 * GUEST_PAGE_BYTES + 99] = 1;
    expect(() => checkPattern(memory)).toThrow("page 4 is not zero at byte 99");
  });

  test("wants whole pages", () => {
    expect(() => checkPattern(new Uint8Array(GUEST_PAGE_BYTES + 1))).toThrow(RangeError);
    expect(() => checkPattern(new Uint8Array(0))).toThrow(RangeError);
  });
});

test("hasCountedOn sees a step of one page and of one round, and no step", () => {
  const count = { value: 3, position: 5, pages: PAGES };
  expect(hasCountedOn(count, { ...count, position: 6 })).toBe(true);
  expect(hasCountedOn(count, { ...count, value: 4 })).toBe(true);
  expect(hasCountedOn(count, { ...count })).toBe(false);
});
