/** What plots draw, looked at as text; how they look, a browser says (report-page.test.ts). */
import { describe, expect, test } from "bun:test";
import { barPlot } from "../../../../src/report/page/bars.ts";
import { heatMap } from "../../../../src/report/page/heat-map.ts";
import type { Heat } from "../../../../src/report/page/heat-map.ts";
import { linePlot } from "../../../../src/report/page/lines.ts";
import type { LinePlot } from "../../../../src/report/page/lines.ts";
import { spreadPlot } from "../../../../src/report/page/spread.ts";
import { facts, folded, table, tiles } from "../../../../src/report/page/tables.ts";

/** What every attribute of a name holds. */
function attributes(text: string, name: string): string[] {
  return [...text.matchAll(new RegExp(` ${name}="([^"]*)"`, "g"))].map((match) => match[1] ?? "");
}

const titles = (text: string): string[] =>
  [...text.matchAll(/<title>([^<]*)<\/title>/g)].map((match) => match[1] ?? "");

function buckets(counts: Record<number, number>): number[] {
  return Array.from({ length: 24 }, (_, index) => counts[index] ?? 0);
}

describe("bars", () => {
  test("are as high as their counts, from the first bucket to the last; rare ones can be seen", () => {
    const counts = buckets({ 5: 10, 6: 40, 8: 1 });
    const series = [{ name: "ours", colour: "blue" as const, buckets: counts }];
    const { text } = barPlot({ title: "Waits", series, counted: "faults" });
    expect(attributes(text, "height").map(Number)).toEqual([250, 1000, 25]);
    expect(titles(text)).toEqual([
      "ours, 32 µs to 64 µs: 10 faults",
      "ours, 64 µs to 128 µs: 40 faults",
      "ours, 256 µs to 512 µs: 1 faults",
    ]);
    // Four buckets, of which one is empty.
    expect(attributes(text, "width").map(Number)).toEqual([220, 220, 220]);
    const rare = barPlot({
      title: "",
      counted: "",
      series: [{ name: "", colour: "blue", buckets: buckets({ 0: 1, 1: 1e6 }) }],
    });
    expect(attributes(rare.text, "height").map(Number)).toEqual([4, 1000]);
    expect(text).toContain('aria-label="Waits: ours: 51 faults, most of 64 µs to 128 µs"');
  });

  test("of several series stand side by side as shares; those without counts are left out", () => {
    const series = [
      { name: "ours", colour: "blue" as const, buckets: buckets({ 5: 1, 6: 1 }) },
      { name: "QEMU", colour: "vermilion" as const, buckets: buckets({ 6: 500 }) },
      { name: "C", colour: "slate" as const, buckets: buckets({}) },
    ];
    const { text } = barPlot({ title: "t", series, counted: "faults", asShares: true });
    expect(titles(text)).toEqual([
      "ours, 32 µs to 64 µs: 50 % of faults",
      "ours, 64 µs to 128 µs: 50 % of faults",
      "QEMU, 64 µs to 128 µs: 100 % of faults",
    ]);
    expect(text).toMatch(/<li><span class="key blue"><\/span>ours<\/li>/);
    expect(text).not.toContain("slate");
  });

  test("one bucket, and none", () => {
    const one = [{ name: "a", colour: "blue" as const, buckets: buckets({ 23: 7 }) }];
    expect(titles(barPlot({ title: "t", series: one, counted: "x" }).text)).toEqual([
      "a, 8.39 s to 16.8 s: 7 x",
    ]);
    const none = barPlot({ title: "t", series: [], counted: "faults" }).text;
    expect(none).toContain("No faults were counted.");
    expect(none).not.toContain("<svg");
  });
});

const plot: Omit<LinePlot, "series" | "shape"> = {
  title: "Rate",
  x: { title: "time", unit: "ms", scale: "exact" },
  y: { title: "rate", unit: "bytes/s", scale: "linear", greatest: 1024 },
};
const drawn = (text: string, kind: string): string[] =>
  [...text.matchAll(new RegExp(`class="${kind}[^"]*"\\s+d="([^"]*)"`, "g"))].map((m) => m[1] ?? "");

describe("lines", () => {
  const points = [
    { x: 0, y: 0 },
    { x: 50, y: 1024 },
    { x: 100, y: 512 },
  ];

  test("go from point to point, or hold until the next", () => {
    const series = [{ name: "a", colour: "blue" as const, points }];
    const line = linePlot({ ...plot, series, shape: "line" }).text;
    expect(drawn(line, "line")).toEqual(["M0 1000L500 0L1000 500"]);
    expect(drawn(line, "dot")).toEqual(["M0 1000h0M500 0h0M1000 500h0"]);
    const step = linePlot({ ...plot, series, shape: "step" }).text;
    expect(drawn(step, "line")).toEqual(["M0 1000H500V0H1000V500"]);
    expect(line).toContain('aria-label="Rate: a at most 1 KiB/s, at the end 512 B/s"');
  });

  test("stacked areas stand on each other, the lowest drawn last", () => {
    const half = points.map(({ x }) => ({ x, y: 256 }));
    const series = [
      { name: "low", colour: "slate" as const, points: half },
      { name: "high", colour: "blue" as const, points: half },
    ];
    const { text } = linePlot({ ...plot, series, shape: "stack" });
    expect(drawn(text, "fill")).toEqual([
      "M0 500H500V500H1000V500V1000H0z",
      "M0 750H500V750H1000V750V1000H0z",
    ]);
    expect(text.indexOf("fill blue")).toBeLessThan(text.indexOf("fill slate"));
    // Read where the pointer rests, without a script.
    expect(titles(text)).toContain("time 50 ms\nlow: 256 B/s\nhigh: 256 B/s");
  });

  test("spreads are drawn where they were measured, moments as upright lines with a name", () => {
    const series = [
      {
        name: "a",
        colour: "blue" as const,
        points: [{ x: 50, y: 512, least: 256, greatest: 768 }],
      },
    ];
    const moments = [{ x: 50, name: "the <guest> ran" }];
    const { text } = linePlot({ ...plot, series, shape: "line", moments });
    expect(drawn(text, "spread")).toEqual(["M1000 750V250"]);
    expect(drawn(text, "moment")).toEqual(["M1000 0V1000"]);
    expect(text).toContain("the &lt;guest&gt; ran</title>");
  });

  test("many points have no dots, and few places that tell values; no point, no plot", () => {
    const many = Array.from({ length: 1000 }, (_, x) => ({ x, y: x }));
    const series = [{ name: "a", colour: "blue" as const, points: many }];
    const { text } = linePlot({ ...plot, series, shape: "line" });
    expect(drawn(text, "dot")).toEqual([]);
    expect(titles(text).length).toBeLessThanOrEqual(80);
    const none = linePlot({ ...plot, series: [], shape: "line", emptyText: "QEMU is silent." });
    expect(none.text).toContain("QEMU is silent.");
    expect(none.text).not.toContain("<svg");
  });
});

describe("a heat map", () => {
  const base = {
    title: "RAM",
    summary: "all of it",
    kinds: [
      { name: "push", colour: "blue" as const },
      { name: "request", colour: "vermilion" as const },
    ],
    x: { title: "time", ticks: [] },
    y: { title: "address", ticks: [] },
    emptyText: "No pages moved.",
  };

  test("equal neighbours are one rectangle, and every colour is one path", () => {
    const rows: (Heat | undefined)[][] = [
      [{ kind: 0, level: 4 }, { kind: 0, level: 4 }, { kind: 1, level: 1 }, undefined],
      [undefined, { kind: 0, level: 4 }, undefined, { kind: 0, level: 4 }],
    ];
    const { text } = heatMap({
      ...base,
      ...{ columns: 4, rows: 2, cell: (column, row) => rows[row]?.[column] },
    });
    expect(drawn(text, "heat level4 blue")).toEqual(["M0 0h2v1h-2zM1 1h1v1h-1zM3 1h1v1h-1z"]);
    expect(drawn(text, "heat level1 vermilion")).toEqual(["M2 0h1v1h-1z"]);
    expect(text).toContain('viewBox="0 0 4 2"');
    expect(text).toContain('aria-label="RAM: all of it"');
  });

  test("at its worst it stays small; without a cell there is none", () => {
    const cell = (column: number, row: number): Heat => ({
      kind: (column + row) % 2,
      level: 1 + ((column + row) % 4),
    });
    const { text } = heatMap({ ...base, columns: 240, rows: 128, cell });
    expect(text.length).toBeLessThan(768 * 1024);
    const none = heatMap({ ...base, columns: 2, rows: 2, cell: () => undefined }).text;
    expect(none).toContain("No pages moved.");
  });
});

describe("medians and spreads", () => {
  const row = (name: string, median: number, least = median, greatest = median) => {
    return { name, colour: "blue" as const, median, least, greatest };
  };

  test("a dot at the median, a line from least to greatest, the values as text", () => {
    const rows = [row("ours", 100, 50, 200), row("QEMU <11>", 400)];
    const { text } = spreadPlot({ title: "Wait", rows, unit: "us", better: "less" });
    expect(drawn(text, "range")).toEqual(["M125 500H500", "M1000 500H1000"]);
    expect(drawn(text, "dot")).toEqual(["M250 500h0", "M1000 500h0"]);
    expect(text).toContain("50 µs – 200 µs");
    expect(text).toContain("QEMU &lt;11&gt;");
    expect(text).toContain(
      'aria-label="Wait, medians: ours 100 µs, QEMU &lt;11&gt; 400 µs; less is better"',
    );
  });

  test("very different ones are on a logarithmic axis; what was not measured is left out", () => {
    const rows = [row("a", 1), row("b", 100), row("c", Number.NaN)];
    const { text } = spreadPlot({ title: "t", rows, unit: "us", better: "more" });
    expect(drawn(text, "dot")).toEqual(["M0 500h0", "M1000 500h0"]);
    expect(text).toContain("More is better.");
    expect(text).not.toContain(">c<");
    const none = spreadPlot({
      title: "t",
      rows: [row("c", Number.NaN)],
      unit: "us",
      better: "less",
    });
    expect(none.text).toContain("Nothing was measured.");
  });
});

test("tables and tiles hold text, never markup of others", () => {
  const name = "<img src=x onerror=alert(1)>";
  const parts = [
    tiles([{ label: name, value: name, note: name }]),
    table({ caption: name, head: [name], rows: [[name, name]], id: "x" }),
    facts(name, [[name, name]]),
    folded(name, "id", name),
  ];
  for (const { text } of parts) {
    expect(text).not.toContain("<img");
    expect(text).toContain("&lt;img src=x onerror=alert(1)&gt;");
  }
});
