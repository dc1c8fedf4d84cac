import { expect, test } from "bun:test";
import fc from "fast-check";
import { Histogram, MICROSECOND_BUCKETS } from "../../../src/report/histogram.ts";

/** Half a bucket: 1 part in 256. */
const BUCKET_ERROR = 1 / 256;
const VALUE_NS_MAX = 2 ** 36 - 1;

/** Latencies spread over all magnitudes, as whole numbers and as fractions. */
const latency = fc
  .tuple(fc.integer({ min: 0, max: 35 }), fc.double({ min: 1, max: 1.999, noNaN: true }))
  .map(([power, mantissa]) => 2 ** power * mantissa);
const latencies = fc.array(latency, { minLength: 1, maxLength: 300 });

function recorded(values: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

/** Nearest rank, from the values themselves. */
function exactPercentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil((percent / 100) * sorted.length)) - 1] ?? 0;
}

test("percentiles are those of the sorted values, within half a bucket", () => {
  fc.assert(
    fc.property(latencies, fc.double({ min: 0, max: 100, noNaN: true }), (values, percent) => {
      const exact = exactPercentile(values, percent);
      const found = recorded(values).percentile(percent);
      expect(Math.abs(found - exact)).toBeLessThanOrEqual(exact * BUCKET_ERROR);
    }),
  );
});

test("count, least, greatest and mean are exact", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 1e9 }), { minLength: 1 }), (values) => {
      const { count, min, max, mean } = recorded(values);
      const sum = values.reduce((total, value) => total + value, 0);
      expect({ count, min, max, mean }).toEqual({
        count: values.length,
        min: Math.min(...values),
        max: Math.max(...values),
        mean: sum / values.length,
      });
    }),
  );
});

test("merging is recording both", () => {
  fc.assert(
    fc.property(latencies, latencies, (here, there) => {
      const merged = recorded(here);
      merged.merge(recorded(there));
      const { mean, ...rest } = merged.summary();
      const { mean: wantedMean, ...wanted } = recorded([...here, ...there]).summary();
      expect(rest).toEqual(wanted);
      // The sum is that of the same numbers in another order.
      expect(mean).toBeCloseTo(wantedMean, -Math.log10(wantedMean) + 9);
    }),
  );
});

test("merging an empty histogram changes nothing, and into one copies", () => {
  const some = recorded([5, 6]);
  some.merge(new Histogram());
  const copy = new Histogram();
  copy.merge(some);
  expect(copy.summary()).toEqual(recorded([5, 6]).summary());
});

test("microsecond buckets are QEMU's: bucket N has [2^N, 2^(N+1)) µs, exactly", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: VALUE_NS_MAX })), (values) => {
      const wanted = Array.from({ length: MICROSECOND_BUCKETS }, () => 0);
      for (const value of values) {
        let bucket = 0;
        while (bucket < MICROSECOND_BUCKETS - 1 && value >= 1000 * 2 ** (bucket + 1)) bucket++;
        wanted[bucket] = (wanted[bucket] ?? 0) + 1;
      }
      expect(recorded(values).microsecondBuckets()).toEqual(wanted);
    }),
    { examples: [[[999, 1000, 1999, 2000, 3999, 4000, 1_023_999, 1_024_000]]] },
  );
});

test("outliers count as the least and the greatest value", () => {
  const histogram = recorded([-5, 0, 0.2, NaN, 1e15, Infinity]);
  expect(histogram.count).toBe(6);
  expect([histogram.min, histogram.max]).toEqual([1, VALUE_NS_MAX]);
  expect(histogram.mean).toBeCloseTo((4 + 2 * VALUE_NS_MAX) / 6, 0);
  expect(histogram.percentile(50)).toBeCloseTo(1, 2);
  expect(histogram.percentile(100)).toBe(VALUE_NS_MAX);
});

test("an empty histogram says zero", () => {
  const { buckets, ...figures } = new Histogram().summary();
  expect(Object.values(figures)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  expect(buckets.every((count) => count === 0)).toBeTrue();
  expect(() => new Histogram().percentile(101)).toThrow(RangeError);
});

test("another thread's histogram is the same memory", () => {
  const histogram = new Histogram();
  const attached = new Histogram(histogram.shared);
  histogram.record(1234);
  expect(attached.summary()).toEqual(histogram.summary());
  expect(() => new Histogram(new SharedArrayBuffer(64))).toThrow("not a histogram");
});
