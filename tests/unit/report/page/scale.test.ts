import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { exactScale, linearScale, logScale } from "../../../../src/report/page/scale.ts";
import type { Scale } from "../../../../src/report/page/scale.ts";
import { formatTick, formatValue } from "../../../../src/report/page/units.ts";
import type { PlotUnit } from "../../../../src/report/page/units.ts";

const labels = ({ ticks }: Scale): string[] => ticks.map(({ label }) => label);
const places = ({ ticks }: Scale): number[] => ticks.map(({ place }) => place);

describe("a linear scale", () => {
  test("goes from 0 to a round value, by round steps", () => {
    const scale = linearScale(93, "%");
    expect(labels(scale)).toEqual(["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
    expect(places(scale)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(scale.place(50)).toBe(0.5);
    expect(labels(linearScale(0.3, "s/GiB"))).toEqual([
      ...["0 s/GiB", "0.1 s/GiB", "0.2 s/GiB", "0.3 s/GiB"],
    ]);
  });

  test("bytes have powers of two", () => {
    expect(labels(linearScale(900 * 2 ** 20, "bytes/s"))).toEqual([
      ...["0 B/s", "256 MiB/s", "512 MiB/s", "768 MiB/s", "1 GiB/s"],
    ]);
  });

  test("nothing, and one value, have an axis too", () => {
    expect(labels(linearScale(0, "count"))).toEqual(["0", "1"]);
    expect(linearScale(0, "count").place(0)).toBe(0);
    expect(labels(linearScale(7, "count"))).toEqual(["0", "2", "4", "6", "8"]);
  });
});

test("an exact scale ends where its values end, with the last mark before it", () => {
  const scale = exactScale(1900, "ms");
  expect(labels(scale)).toEqual(["0 s", "500 ms", "1 s", "1.5 s"]);
  expect(scale.place(1900)).toBe(1);
  expect(scale.place(950)).toBe(0.5);
  expect(exactScale(0, "ms").place(0)).toBe(0);
});

describe("a logarithmic scale", () => {
  test("has a mark at each power of ten around its values", () => {
    const scale = logScale(33, 14_700, "us");
    expect(labels(scale)).toEqual(["10 µs", "100 µs", "1 ms", "10 ms", "100 ms"]);
    expect(scale.place(1000)).toBeCloseTo(0.5, 12);
  });

  test("of one value, of nothing, of zero and of many decades", () => {
    expect(labels(logScale(10, 10, "us"))).toEqual(["10 µs", "100 µs"]);
    expect(labels(logScale(0, 0, "us"))).toEqual(["1 µs", "10 µs"]);
    expect(logScale(1, 100, "us").place(0)).toBe(0);
    expect(labels(logScale(1, 1e12, "count")).length).toBeLessThan(9);
    expect(labels(logScale(2 ** 28, 2 ** 34, "bytes"))).toEqual([
      ...["256 MiB", "1 GiB", "4 GiB", "16 GiB"],
    ]);
  });
});

test("places are within the axis, rise with the values, and marks too", () => {
  const value = fc.double({ min: 0, max: 1e15, noNaN: true });
  const unit = fc.constantFrom<PlotUnit>("us", "bytes", "%", "count");
  fc.assert(
    fc.property(value, value, value, unit, (a, b, greatest, of) => {
      const least = Math.min(a, greatest);
      for (const scale of [
        linearScale(greatest, of),
        exactScale(greatest, of),
        logScale(least, greatest, of),
      ]) {
        const [low, high] = [scale.place(Math.min(a, b)), scale.place(Math.max(a, b))];
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual(high);
        const at = places(scale);
        expect(at).toEqual(at.toSorted((x, y) => x - y));
        expect(new Set(labels(scale)).size).toBe(at.length);
        expect(at.length).toBeLessThan(14);
      }
    }),
  );
});

test("values have their units", () => {
  const cases: [number, PlotUnit, string][] = [
    [0.31, "ms", "310 µs"],
    [1500, "us", "1.50 ms"],
    [33_000, "ns", "33 µs"],
    [2, "s", "2 s"],
    [2 ** 30, "bytes", "1 GiB"],
    [0.45, "s/GiB", "0.45 s/GiB"],
    [2.976, "%", "2.98 %"],
    [0.0131, "%", "0.013 %"],
    [262_144, "count", "262,144"],
    [1.2, "ratio", "1.2 ×"],
  ];
  for (const [value, unit, text] of cases) expect(formatValue(value, unit)).toBe(text);
  expect(formatTick(1500, "us")).toBe("1.5 ms");
  expect(formatTick(1000, "ms")).toBe("1 s");
});
