import { expect, test } from "bun:test";
import fc from "fast-check";
import { formatDuration, formatNanoseconds, parseDuration } from "../../../src/util/duration.ts";

test.each([
  ["300ms", 300],
  ["5s", 5000],
  ["1.5 s", 1500],
  ["2m", 120_000],
  ["1h30m", 5_400_000],
  ["1h 0m 1s", 3_601_000],
  ["250us", 0.25],
  ["250µs", 0.25],
  ["40ns", 0.00004],
  ["0", 0],
])("%s is %d ms", (text, ms) => {
  expect(parseDuration(text)).toBeCloseTo(ms, 9);
});

test.each([
  ["300", "has no unit: 300ms, 300s or 300m?"],
  ["1m1h", "does not go from larger to smaller units"],
  ["1s1s", "does not go from larger to smaller units"],
  ["3 fortnights", 'has an unknown unit, "fortnights"'],
  ["3000h", "is longer than 100 days"],
  ["-1s", "is not a duration"],
  ["", "is not a duration"],
  ["s", "is not a duration"],
  ["1s".repeat(100), "is not a duration"],
])("%s is refused: %s", (text, why) => {
  expect(() => parseDuration(text)).toThrow(why);
});

test.each([
  [0, "0 s"],
  [1e-6, "1 ns"],
  [0.00085, "850 ns"],
  [0.0123, "12.3 µs"],
  [0.9996, "1.00 ms"],
  [1.234, "1.23 ms"],
  [123, "123 ms"],
  [999.6, "1.00 s"],
  [1500, "1.50 s"],
  [59_949, "59.9 s"],
  [59_999, "1m00s"],
  [125_000, "2m05s"],
  [3_599_999, "1h00m"],
  [3_720_000, "1h02m"],
])("%d ms is written as %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
  expect(formatNanoseconds(ms * 1e6)).toBe(text);
});

test("what is written is read back", () => {
  // Above an hour the last digit is a minute: half of it in sixty.
  const ROUNDING = 0.01;
  fc.assert(
    fc.property(fc.double({ min: 1e-4, max: 8e9, noNaN: true }), (ms) => {
      const back = parseDuration(formatDuration(ms));
      expect(Math.abs(back - ms)).toBeLessThanOrEqual(ms * ROUNDING);
    }),
  );
});
