import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  blockLayout,
  PAGE_SIZE_HUGE,
  PAGE_SIZE_SMALL,
  pageCount,
  parameterProblem,
  STRESS_DEFAULTS,
  type StressParameters,
} from "../../../src/guests/stress/parameters.ts";

test("the defaults are a guest", () => {
  expect(parameterProblem(STRESS_DEFAULTS)).toBeUndefined();
  expect(pageCount(STRESS_DEFAULTS)).toBe(262_144);
  expect(blockLayout(STRESS_DEFAULTS)).toEqual([{ name: "stress.ram", length: 2 ** 30 }]);
});

test("the blocks share the host pages evenly and make up the size", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 64, max: 5000 }),
      fc.constantFrom(PAGE_SIZE_SMALL, PAGE_SIZE_HUGE),
      (blocks, hostPages, pageSize) => {
        const size = hostPages * pageSize;
        const layout = blockLayout({ ...STRESS_DEFAULTS, size, blocks, pageSize });
        expect(new Set(layout.map(({ name }) => name)).size).toBe(blocks);
        const pages = layout.map(({ length }) => length / pageSize);
        expect(pages.every(Number.isInteger)).toBe(true);
        expect(Math.max(...pages) - Math.min(...pages)).toBeWithin(0, 2);
        expect(pages.reduce((sum, count) => sum + count, 0)).toBe(hostPages);
      },
    ),
  );
});

describe("a problem names its parameter", () => {
  const cases: [Partial<StressParameters>, keyof StressParameters][] = [
    [{ size: 0 }, "size"],
    [{ size: 4097 }, "size"],
    [{ size: 2 ** 41 }, "size"],
    [{ size: NaN }, "size"],
    [{ size: 2 ** 30 + 4096, pageSize: PAGE_SIZE_HUGE, discardRate: 0 }, "size"],
    [{ size: 4096, blocks: 2, workers: 1 }, "size"],
    [{ workers: 0 }, "workers"],
    [{ workers: 65 }, "workers"],
    [{ size: 4096 }, "workers"],
    [{ blocks: 1.5 }, "blocks"],
    [{ pageSize: 8192 }, "pageSize"],
    [{ rate: -1 }, "rate"],
    [{ hotFraction: 1.01 }, "hotFraction"],
    [{ hotFraction: 0.6, zeroFraction: 0.6 }, "hotFraction"],
    [{ hotShare: NaN }, "hotShare"],
    [{ zeroFraction: -0.1 }, "zeroFraction"],
    [{ discardRate: 2 }, "discardRate"],
    [{ pageSize: PAGE_SIZE_HUGE }, "discardRate"],
    [{ seed: 2 ** 32 }, "seed"],
    [{ durationMs: 0.5 }, "durationMs"],
  ];
  test.each(cases)("%j", (changes, parameter) => {
    expect(parameterProblem({ ...STRESS_DEFAULTS, ...changes })?.parameter).toBe(parameter);
  });
});
