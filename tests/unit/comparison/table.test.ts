/** What a terminal shows of results. */
import { describe, expect, test } from "bun:test";
import { formatSpread } from "../../../src/bench/figures.ts";
import { describeMachine, renderBenchmark } from "../../../src/bench/table.ts";
import { createPaint } from "../../../src/util/terminal.ts";
import { bulk, growth, sampleResults } from "./fixtures/results.ts";

const plain = createPaint(false);

describe("formatSpread", () => {
  test("says a unit once where it is the same for all", () => {
    expect(formatSpread([2, 1, 3], "ms")).toBe("2 ms (1 to 3)");
    expect(formatSpread([0.5, 1, 30], "ms")).toBe("1 ms (500 µs to 30 ms)");
  });

  test("has no ends of a single run, and a dash of none", () => {
    expect(formatSpread([2e9], "bytes/s")).toBe("1.86 GiB/s");
    expect(formatSpread([], "bytes/s")).toBe("–");
  });
});

describe("renderBenchmark", () => {
  test("has a line for each entry and each target", () => {
    expect(renderBenchmark(bulk, plain).split("\n")).toEqual([
      "Bulk (bulk, 3 runs each)",
      "                                                         rate                CPU time",
      "  ours → ours            1.86 GiB/s (954 MiB/s to 2.79 GiB/s)  0.5 s/GiB (0.4 to 0.6)",
      "  QEMU 11.1 → QEMU 11.1   954 MiB/s (858 MiB/s to 1.02 GiB/s)  0.6 s/GiB (0.6 to 0.6)",
      "  C                                 1.86 GiB/s (1.86 to 1.86)                       –",
      "  rate of ours → ours, at least 1.2 × that of QEMU 11.1 → QEMU 11.1: 2 ×, met",
      "  CPU time of ours → ours, at most 0.75 × that of QEMU 11.1 → QEMU 11.1: 0.83 ×, not met",
      "  CPU time of ours → ours, at most 1 × that of C: –, not measured",
    ]);
  });

  test("has a column for the axis", () => {
    const lines = renderBenchmark(growth, plain).split("\n");
    expect(lines[1]).toContain("RAM");
  });

  test("paints what is met and what is not", () => {
    const paint = {
      ...plain,
      green: (text: string) => `+${text}`,
      red: (text: string) => `-${text}`,
    };
    const painted = renderBenchmark(bulk, paint).split("\n");
    expect(painted.filter((line) => line.startsWith("+"))).toHaveLength(1);
    expect(painted.filter((line) => line.startsWith("-"))).toHaveLength(1);
  });
});

test("a machine is said in a line", () => {
  expect(describeMachine(sampleResults.machine)).toBe("Abacus, 2 cores, 8 GiB, Linux 6.1.0");
});
