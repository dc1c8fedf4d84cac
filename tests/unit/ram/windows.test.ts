import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { mapAnonymous, scratchAt, WINDOW_BYTES_MAX } from "../../../syscalls/memory.ts";
import { MemoryWindows } from "../../../src/ram/windows.ts";

const PAGE = 4096;

describe("memory of two windows and a half", () => {
  const length = 2.5 * WINDOW_BYTES_MAX;
  const mapping = mapAnonymous(length);
  const windows = new MemoryWindows(mapping.address, length);
  const bytesAt = (offset: number, count: number): Uint8Array =>
    scratchAt(mapping.address + offset, count).bytes;

  test("is written across the border of two windows", () => {
    const data = Uint8Array.from({ length: 3 * PAGE }, (_, i) => (i % 251) + 1);
    const offset = 2 * WINDOW_BYTES_MAX - PAGE - 5;
    windows.write(offset, data);
    expect(bytesAt(offset, data.length)).toEqual(data);
    windows.clear(offset + 1, data.length - 2);
    expect(bytesAt(offset, data.length)).toEqual(
      data.map((byte, i) => (i === 0 || i === data.length - 1 ? byte : 0)),
    );
  });

  test("shows each place in one window, and none behind its end", () => {
    const last = length - 1;
    bytesAt(last, 1)[0] = 99;
    const window = windows.window(last);
    expect(window.length).toBe(WINDOW_BYTES_MAX / 2);
    expect(window[last % WINDOW_BYTES_MAX]).toBe(99);
    expect(windows.window(WINDOW_BYTES_MAX - 1)).toBe(windows.window(0));
    expect(windows.window(WINDOW_BYTES_MAX)).not.toBe(windows.window(0));
    expect(() => windows.window(length + WINDOW_BYTES_MAX)).toThrow(RangeError);
  });

  test("knows a zero page in any window from one with a single bit", () => {
    const pages = [0, WINDOW_BYTES_MAX - PAGE, WINDOW_BYTES_MAX, length - PAGE].map((offset) => {
      windows.clear(offset, PAGE);
      return offset;
    });
    for (const offset of pages) {
      expect(windows.isZeroPage(offset)).toBe(true);
      for (const at of [0, 1, 7, 8, 2047, PAGE - 1]) {
        bytesAt(offset + at, 1)[0] = 0x80;
        expect(windows.isZeroPage(offset)).toBe(false);
        bytesAt(offset + at, 1)[0] = 0;
      }
      // What the neighbours hold is no business of this page.
      if (offset > 0) bytesAt(offset - 1, 1)[0] = 1;
      expect(windows.isZeroPage(offset)).toBe(true);
      if (offset > 0) bytesAt(offset - 1, 1)[0] = 0;
    }
  });

  test("is copied page by page, from either side of a border", () => {
    const target = new Uint8Array(3 * PAGE).fill(0xee);
    for (const offset of [WINDOW_BYTES_MAX - PAGE, WINDOW_BYTES_MAX, length - PAGE]) {
      const page = Uint8Array.from({ length: PAGE }, (_, i) => (i * 3 + offset / PAGE) & 0xff);
      windows.write(offset, page);
      windows.readPage(offset, target, 100);
      expect(target.slice(100, 100 + PAGE)).toEqual(page);
      expect([target[99], target[100 + PAGE]]).toEqual([0xee, 0xee]);
      windows.clear(offset, PAGE);
    }
  });

  test("holds what was written last, in any order of writes and clearings", () => {
    const base = WINDOW_BYTES_MAX - 3000;
    const model = new Uint8Array(6000);
    const change = fc.record({
      at: fc.nat({ max: 5999 }),
      length: fc.nat({ max: 4000 }),
      fill: fc.nat({ max: 255 }),
    });
    windows.clear(base, model.length);
    fc.assert(
      fc.property(change, ({ at, length: wanted, fill }) => {
        const count = Math.min(wanted, model.length - at);
        if (fill === 0) windows.clear(base + at, count);
        else windows.write(base + at, new Uint8Array(count).fill(fill));
        model.fill(fill, at, at + count);
        expect(Buffer.from(bytesAt(base, model.length)).equals(model)).toBe(true);
      }),
    );
  });
});

test("the last page of a block of an odd size is judged by the bytes that it has", () => {
  using mapping = mapAnonymous(2 * PAGE);
  const windows = new MemoryWindows(mapping.address, PAGE + 100);
  scratchAt(mapping.address + PAGE + 100, 1).bytes[0] = 1;
  expect(windows.isZeroPage(PAGE)).toBe(true);
  scratchAt(mapping.address + PAGE + 99, 1).bytes[0] = 1;
  expect(windows.isZeroPage(PAGE)).toBe(false);
});
