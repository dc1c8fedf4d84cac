import { expect, test } from "bun:test";
import { PageMap } from "../../../src/guests/stress/page-map.ts";

const GIBIBYTE = 2 ** 30;

test("finds every page of blocks that are larger than a window", () => {
  // All windows look at the same memory: only where a page is looked for matters here.
  const whole = new SharedArrayBuffer(GIBIBYTE);
  const parts = new Map([[GIBIBYTE, whole]]);
  const asked: [number, number][] = [];
  const view = (address: number, length: number): SharedArrayBuffer => {
    asked.push([address, length]);
    return parts.get(length) ?? new SharedArrayBuffer(length);
  };
  const blocks = [
    { address: 0x10_0000_0000, length: 5 * GIBIBYTE + 8192 },
    { address: 0x7000_0000_0000, length: 4096 },
    { address: 0x2000_0000_0000, length: GIBIBYTE },
  ];
  const map = new PageMap(blocks, view);
  expect(asked.map(([, length]) => length)).toEqual([
    ...new Array<number>(5).fill(GIBIBYTE),
    8192,
    4096,
    GIBIBYTE,
  ]);
  expect(map.pages).toBe(6 * 262_144 + 3);

  const first = 5 * 262_144;
  const places: [number, number, number][] = [
    [0, 0x10_0000_0000, 0],
    [262_143, 0x10_0000_0000 + GIBIBYTE - 4096, 262_143 * 1024],
    [262_144, 0x10_0000_0000 + GIBIBYTE, 0],
    [first + 1, 0x10_0000_0000 + 5 * GIBIBYTE + 4096, 1024],
    [first + 2, 0x7000_0000_0000, 0],
    [first + 3, 0x2000_0000_0000, 0],
    [map.pages - 1, 0x2000_0000_0000 + GIBIBYTE - 4096, 262_143 * 1024],
  ];
  for (const [page, address, word] of [...places, ...places.toReversed()]) {
    map.seek(page);
    expect({ address: map.address, word: map.word }).toEqual({ address, word });
  }
  map.seek(first + 2);
  expect(map.window.words.length).toBe(1024);
  for (const page of [-1, map.pages, NaN]) expect(() => map.seek(page)).toThrow(RangeError);
});

test("refuses views of another length, parts of pages, and no memory", () => {
  const blocks = [{ address: 4096, length: 8192 }];
  expect(() => new PageMap(blocks, () => new ArrayBuffer(4096))).toThrow(RangeError);
  const part = [{ address: 4096, length: 100 }];
  expect(() => new PageMap(part, () => new ArrayBuffer(100))).toThrow(RangeError);
  expect(() => new PageMap([], () => new ArrayBuffer(0))).toThrow(RangeError);
});
