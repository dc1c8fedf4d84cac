import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { UsageError } from "../../../src/util/errors.ts";
import {
  formatBytes,
  formatCount,
  formatPageSize,
  formatRate,
  parseBytes,
  parsePageSize,
  parseRate,
  quoted,
} from "../../../src/util/units.ts";

/** Three significant digits: half a unit of the last one. */
const ROUNDING = 0.005;

function expectNear(actual: number, wanted: number, share: number): void {
  expect(Math.abs(actual - wanted)).toBeLessThanOrEqual(wanted * share);
}

function refusal(parse: (text: string) => number, text: string): string {
  try {
    parse(text);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    if (error instanceof UsageError) return `${error.message} | ${error.hint}`;
  }
  throw new Error(`${text} was accepted`);
}

describe("sizes", () => {
  test.each([
    ["4096", 4096],
    ["0", 0],
    ["512B", 512],
    ["1KiB", 1024],
    ["1.5GiB", 1_610_612_736],
    ["2TiB", 2 * 2 ** 40],
    ["4 GiB", 2 ** 32],
    ["1kB", 1000],
    ["2MB", 2_000_000],
    ["3GB", 3e9],
    // As QEMU takes them: -m 4G.
    ["4K", 4096],
    ["256M", 2 ** 28],
    ["1.5G", 1_610_612_736],
    ["1T", 2 ** 40],
  ])("%s is %d bytes", (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  test.each(["4k", "1KB", "1g"])("%s is refused with both readings", (text) => {
    expect(refusal(parseBytes, text)).toMatch(/could be .iB \(powers of 1024\) or .B \(powers of/);
  });

  test.each([
    ["1gib", "did you mean GiB?"],
    ["", "is not a size"],
    ["-1", "is not a size"],
    ["1e9", "is not a size"],
    ["GiB", "is not a size"],
    ["1GiB2", "is not a size"],
    ["1furlong", "no known unit"],
    ["9999999TiB", "more than this program can count"],
    ["9".repeat(500), "is not a size"],
  ])("%s is refused: %s", (text, why) => {
    expect(refusal(parseBytes, text)).toContain(why);
  });

  test.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    // 1023.6 KiB, which would be 1024 KiB.
    [1_048_166, "1.00 MiB"],
    [1_610_612_736, "1.50 GiB"],
    [123_456_789, "118 MiB"],
    [2 ** 50, "1024 TiB"],
  ])("%d is written as a size", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  test("what is written is read back", () => {
    fc.assert(
      fc.property(
        fc.maxSafeNat().map((value) => Math.floor(value / 2)),
        (bytes) => {
          expectNear(parseBytes(formatBytes(bytes)), bytes, ROUNDING);
        },
      ),
    );
  });
});

describe("page sizes", () => {
  test.each([
    ["4096", 4096],
    ["4K", 4096],
    ["4k", 4096],
    ["4KiB", 4096],
    ["2M", 2_097_152],
    ["2MiB", 2_097_152],
    ["1G", 2 ** 30],
  ])("%s is %d bytes", (text, bytes) => {
    expect(parsePageSize(text)).toBe(bytes);
  });

  test.each(["3K", "2048", "2G", "4MB", "4", "", "x", "4.5K"])("%s is refused", (text) => {
    expect(refusal(parsePageSize, text)).toContain("is not a page size");
  });

  test("what is written is read back exactly", () => {
    for (let bits = 12; bits <= 30; bits++) {
      expect(parsePageSize(formatPageSize(2 ** bits))).toBe(2 ** bits);
    }
  });
});

describe("rates", () => {
  test.each([
    ["200MiB/s", 200 * 2 ** 20],
    ["125MB/s", 125e6],
    ["1Gbit/s", 125e6],
    ["8kbit/s", 1000],
    ["0", 0],
  ])("%s is %d bytes a second", (text, rate) => {
    expect(parseRate(text)).toBe(rate);
  });

  test.each([
    ["200MiB", "did you mean MiB/s?"],
    ["10Gbps", "did you mean Gbit/s?"],
    ["10gb/s", "did you mean Gbit/s?"],
    ["200MBps", "did you mean MB/s?"],
    ["5kbit", "did you mean kbit/s?"],
    ["200M/s", "could be MiB (powers of 1024) or MB"],
    ["5/s", "no known unit"],
    // Bytes? MiB, as in QEMU's monitor? Nobody knows.
    ["100", "no known unit"],
    ["fast", "is not a rate"],
  ])("%s is refused: %s", (text, why) => {
    expect(refusal(parseRate, text)).toContain(why);
  });

  test("what is written is read back", () => {
    fc.assert(
      fc.property(
        fc.maxSafeNat().map((value) => Math.floor(value / 2)),
        (rate) => {
          expectNear(parseRate(formatRate(rate)), rate, ROUNDING);
        },
      ),
    );
  });
});

test("counts have separators", () => {
  expect([0, 999, 1234, 1_234_567, 12.4].map(formatCount)).toEqual([
    "0",
    "999",
    "1,234",
    "1,234,567",
    "12",
  ]);
});

test("a long text is cut and control characters are escaped in messages", () => {
  expect(quoted("x".repeat(41))).toBe(`"${"x".repeat(40)}…"`);
  expect(quoted("a\u001b[31m\n")).toBe('"a\\u001b[31m\\n"');
});
