import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { makeMemoryFile, mapFile } from "../../../syscalls/memfd.ts";
import { bitmapBytes, lowestBit, PageBitmap, popCount } from "../../../src/ram/bitmap.ts";
import { SharedEvent } from "../../../src/sync/event.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as ClaimsFixture from "../../fixtures/claims.ts";

/** Sizes around the edges of words, and a few larger ones. */
const sizes = fc.oneof(
  fc.constantFrom(1, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129),
  fc.integer({ min: 1, max: 400 }),
);

const edge = fc.constantFrom(0, 1, 30, 31, 32, 33, 62, 63, 64, 65, 95, 96, 127, 128);
const place = fc.oneof(edge, fc.nat({ max: 400 }));

interface Step {
  kind: "set" | "claim" | "claimRun" | "setRunCounting" | "setRange" | "clearRange" | "setAll";
  at: number;
  count: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(
    "set",
    "claim",
    "claimRun",
    "setRunCounting",
    "setRange",
    "clearRange",
    "setAll",
  ),
  at: place,
  count: place,
});

/** The pages of [first, first + count), cut off at `pages`. */
function range(first: number, count: number, pages: number): number[] {
  const end = Math.min(pages, first + count);
  return Array.from({ length: Math.max(0, end - first) }, (_, i) => first + i);
}

/** Does one step to both; what the bitmap answered must be what the model says. */
function apply(bitmap: PageBitmap, model: Set<number>, { kind, at, count }: Step): void {
  const { pages } = bitmap;
  const page = at % pages;
  const chosen = range(page, count, pages);
  switch (kind) {
    case "set":
      expect(bitmap.set(page)).toBe(!model.has(page));
      model.add(page);
      break;
    case "claim":
      expect(bitmap.claim(page)).toBe(model.delete(page));
      break;
    case "claimRun": {
      const stop = chosen.findIndex((one) => !model.has(one));
      const run = stop < 0 ? chosen : chosen.slice(0, stop);
      expect(bitmap.claimRun(page, page + chosen.length)).toBe(run.length);
      for (const one of run) model.delete(one);
      break;
    }
    case "setRunCounting": {
      const fresh = chosen.filter((one) => !model.has(one));
      expect(bitmap.setRunCounting(page, chosen.length)).toBe(fresh.length);
      for (const one of fresh) model.add(one);
      break;
    }
    case "setRange":
      bitmap.setRange(page, chosen.length);
      for (const one of chosen) model.add(one);
      break;
    case "clearRange":
      bitmap.clearRange(page, chosen.length);
      for (const one of chosen) model.delete(one);
      break;
    case "setAll":
      bitmap.setAll();
      for (const one of range(0, pages, pages)) model.add(one);
      break;
  }
}

function built(pages: number, steps: readonly Step[]): { bitmap: PageBitmap; model: Set<number> } {
  const bitmap = new PageBitmap(pages);
  const model = new Set<number>();
  for (const each of steps) apply(bitmap, model, each);
  return { bitmap, model };
}

const steps = fc.array(step, { maxLength: 12 });

describe("a bitmap", () => {
  test("holds what a set of pages would", () => {
    fc.assert(
      fc.property(sizes, steps, (pages, all) => {
        const { bitmap, model } = built(pages, all);
        const held = range(0, pages, pages).filter((page) => bitmap.test(page));
        expect(held).toEqual([...model].toSorted((a, b) => a - b));
        expect(bitmap.count()).toBe(model.size);
      }),
      { numRuns: 300 },
    );
  });

  test("finds the next set and the next clear page within an end", () => {
    fc.assert(
      fc.property(sizes, steps, place, place, (pages, all, a, b) => {
        const { bitmap, model } = built(pages, all);
        const from = a % (pages + 1);
        const end = from + (b % (pages - from + 1));
        const within = range(from, end - from, pages);
        expect(bitmap.nextSet(from, end)).toBe(within.find((page) => model.has(page)) ?? -1);
        expect(bitmap.nextClear(from, end)).toBe(within.find((page) => !model.has(page)) ?? end);
        const rest = range(from, pages, pages);
        expect(bitmap.nextSet(from)).toBe(rest.find((page) => model.has(page)) ?? -1);
        expect(bitmap.nextClear(from)).toBe(rest.find((page) => !model.has(page)) ?? pages);
        const held = within.filter((page) => model.has(page));
        expect(bitmap.countRange(from, end - from)).toBe(held.length);
      }),
      { numRuns: 500 },
    );
  });

  test("hands its ranges over in order, as long as they can be", () => {
    fc.assert(
      fc.property(sizes, steps, (pages, all) => {
        const { bitmap, model } = built(pages, all);
        const ranges: [number, number][] = [];
        bitmap.forEachRange((first, count) => ranges.push([first, count]));
        const covered = ranges.flatMap(([first, count]) => range(first, count, pages));
        expect(covered).toEqual([...model].toSorted((a, b) => a - b));
        // Two ranges that touched would be one.
        const touching = ranges.filter(([first], i) => {
          const before = ranges[i - 1];
          return before !== undefined && before[0] + before[1] >= first;
        });
        expect(touching).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  test("lies in memory as QEMU's received bitmap does on the wire", () => {
    const bitmap = new PageBitmap(70);
    for (const page of [0, 9, 31, 32, 69]) bitmap.set(page);
    expect(bitmap.shared.byteLength).toBe(16);
    expect([...new Uint8Array(bitmap.shared)]).toEqual([
      0b1, 0b10, 0, 0x80, 0b1, 0, 0, 0, 0b100000, 0, 0, 0, 0, 0, 0, 0,
    ]);
  });

  test("is one bitmap for all who attach to it", () => {
    const bitmap = new PageBitmap(100);
    const other = new PageBitmap(100, bitmap.shared);
    bitmap.set(99);
    expect(other.claim(99)).toBe(true);
    expect(bitmap.test(99)).toBe(false);
  });
});

describe("of several threads", () => {
  const FIXTURE = import.meta.resolve("../../fixtures/claims.ts");
  const start = () => startThread<typeof ClaimsFixture>(FIXTURE);
  const PAGES = 2_000_003;

  test.each([
    ["upwards", "upwards"],
    ["upwards", "downwards"],
  ] as const)("exactly one claims each page (%s and %s)", async (one, other) => {
    await using first = await start();
    await using second = await start();
    const bitmap = new PageBitmap(PAGES);
    bitmap.setAll();
    const go = new SharedEvent();
    const counts = new SharedArrayBuffer(PAGES);
    const claiming = [
      first.call("claimAll", bitmap.shared, PAGES, go.shared, counts, one),
      second.call("claimAll", bitmap.shared, PAGES, go.shared, counts, other),
    ];
    go.set();
    await Promise.all(claiming);
    expect(new Uint8Array(counts).findIndex((count) => count !== 1)).toBe(-1);
    expect(bitmap.count()).toBe(0);
  });

  test.each(["engine", "file"])(
    "none undoes what another sets in a word of the %s's memory",
    async (of) => {
      await using first = await start();
      await using second = await start();
      using descriptors = new Descriptors();
      const length = bitmapBytes(PAGES);
      using mapping = mapFile(descriptors.add(makeMemoryFile("test", length)), length);
      const shared = of === "file" ? mapping : new SharedArrayBuffer(length);
      const where = "address" in shared ? { address: shared.address, length } : shared;
      const bitmap = new PageBitmap(PAGES, where);
      const go = new SharedEvent();
      // Both set every sixth page: each of these is fresh for one of them.
      const setting = [
        first.call("setEvery", where, PAGES, go.shared, 2, 0),
        second.call("setEvery", where, PAGES, go.shared, 3, 0),
      ];
      go.set();
      const [a = 0, b = 0] = await Promise.all(setting);
      expect(a + b).toBe(bitmap.count());
      expect(bitmap.count()).toBe(
        Math.ceil(PAGES / 2) + Math.ceil(PAGES / 3) - Math.ceil(PAGES / 6),
      );
    },
  );
});

test("bits of a word are counted and found, the sign bit too", () => {
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (word) => {
      const text = (word >>> 0).toString(2);
      expect(popCount(word)).toBe(text.replaceAll("0", "").length);
      if (word !== 0) expect(lowestBit(word)).toBe(text.length - 1 - text.lastIndexOf("1"));
    }),
  );
  expect([popCount(-1), popCount(1 << 31), lowestBit(1 << 31)]).toEqual([32, 1, 31]);
});
