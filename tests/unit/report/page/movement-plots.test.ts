import { describe, expect, test } from "bun:test";
import { KINDS } from "../../../../src/report/moved-pages.ts";
import { MovementLog } from "../../../../src/report/movement.ts";
import { arrivalMap } from "../../../../src/report/page/arrival-map.ts";
import { residencyPlot, throughputPlot } from "../../../../src/report/page/movement-plots.ts";
import type { Timeframe } from "../../../../src/report/page/timeframe.ts";

const MS = 1e6;
const SECOND = 1000 * MS;

/** Movement of a guest of 8 pages in 8 bins; each step says what moved until a time in ms. */
function timeframeOf(
  steps: readonly {
    ms: number;
    moved: readonly [kind: number, bin: number][];
    resident?: number;
  }[],
  moments: Timeframe["moments"] = [],
): Timeframe {
  const [bins, totalPages] = [8, 8];
  const movement = new MovementLog(bins, KINDS.length);
  const counts = new Uint32Array(KINDS.length * bins);
  movement.take(counts, SECOND, undefined);
  for (const { ms, moved, resident } of steps) {
    for (const [kind, bin] of moved)
      counts[kind * bins + bin] = (counts[kind * bins + bin] ?? 0) + 1;
    movement.take(counts, SECOND + ms * MS, resident);
  }
  return { movement, zeroNs: SECOND, totalPages, moments };
}

const drawn = (text: string, kind: string): string[] =>
  [...text.matchAll(new RegExp(`class="${kind}[^"]*"\\s+d="([^"]*)"`, "g"))].map((m) => m[1] ?? "");
const labels = (text: string): string[] =>
  [...text.matchAll(/<span style="bottom:[^>]*>([^<]*)</g)].map((match) => match[1] ?? "");

describe("throughput", () => {
  test("is the pages of a sample by its length; kinds that never came have no colour", () => {
    const timeframe = timeframeOf([
      {
        ms: 10,
        moved: [
          [0, 0],
          [0, 1],
        ],
      },
      { ms: 20, moved: [[1, 2]] },
    ]);
    const { text } = throughputPlot(timeframe, "");
    // 8 KiB in 10 ms are 800 KiB/s.
    expect(labels(text)).toEqual(["0 B/s", "256 KiB/s", "512 KiB/s", "768 KiB/s", "1 MiB/s"]);
    const top = (bytesPerSecond: number): number => {
      return Math.round((1 - bytesPerSecond / 2 ** 20) * 10_000) / 10;
    };
    expect(drawn(text, "fill slate")).toEqual([`M0 ${top(819_200)}H500V1000H1000V1000V1000H0z`]);
    expect(drawn(text, "fill blue")).toEqual([
      `M0 ${top(819_200)}H500V${top(409_600)}H1000V${top(409_600)}V1000H0z`,
    ]);
    expect(text).not.toContain("vermilion");
  });

  test("of nothing says so", () => {
    expect(throughputPlot(timeframeOf([]), "").text).toContain("No pages moved.");
  });
});

test("residency is what was counted; before, what has come, each page once", () => {
  const timeframe = timeframeOf([
    {
      ms: 10,
      moved: [
        [0, 0],
        [0, 1],
      ],
    },
    // The same once more: a later round.
    {
      ms: 20,
      moved: [
        [0, 0],
        [0, 1],
      ],
    },
    { ms: 30, moved: [[1, 3]], resident: 0.5 },
    { ms: 40, moved: [[1, 3]], resident: 1 },
  ]);
  const { text } = residencyPlot(timeframe, "Residency", "");
  expect(drawn(text, "line")).toEqual(["M0 1000L250 750L500 750L750 500L1000 0"]);
});

describe("the map of RAM", () => {
  test("has address 0 on top, time to the right, and in a cell the kind that was most", () => {
    const timeframe = timeframeOf(
      [
        {
          ms: 10,
          moved: [
            [0, 0],
            [1, 7],
          ],
        },
        { ms: 20, moved: [[3, 4]] },
      ],
      [{ x: 20, name: "the guest ran" }],
    );
    const { text } = arrivalMap(timeframe, "RAM arriving", "came");
    expect(text).toContain('viewBox="0 0 2 8"');
    expect(drawn(text, "heat level4 slate")).toEqual(["M0 0h2v1h-2z"]);
    expect(drawn(text, "heat level4 blue")).toEqual(["M0 7h2v1h-2z"]);
    expect(drawn(text, "heat level4 green")).toEqual(["M1 4h1v1h-1z"]);
    expect(drawn(text, "moment")).toEqual(["M1000 0V1000"]);
    expect(labels(text)).toEqual(["0 B", "8 KiB", "16 KiB", "24 KiB", "32 KiB"]);
    expect(
      [...text.matchAll(/>(precopy|push|request|replay)<\/th>/g)].map(([, kind]) => kind),
    ).toEqual(["precopy", "push", "replay"]);
  });

  test("shows requests among many more pushed pages, from a tenth of a cell on", () => {
    const push = Array.from({ length: 9 }, (): [number, number] => [1, 0]);
    const map = (pushes: number): string => {
      const moved: [number, number][] = [...push, ...push].slice(0, pushes);
      return arrivalMap(timeframeOf([{ ms: 10, moved: [...moved, [2, 0]] }]), "", "").text;
    };
    expect(drawn(map(9), "heat level4 vermilion")).toHaveLength(1);
    expect(drawn(map(18), "heat level4 vermilion")).toEqual([]);
    expect(drawn(map(18), "heat level4 blue")).toHaveLength(1);
  });

  test("spreads a long sample over its columns, and loses no page by it", () => {
    const bins = Array.from({ length: 8 }, (_, bin): [number, number] => [1, bin]);
    const timeframe = timeframeOf([
      { ms: 1, moved: [[0, 0]] },
      { ms: 2, moved: [[0, 1]] },
      { ms: 99, moved: bins },
      {
        ms: 100,
        moved: [
          [2, 3],
          [2, 3],
          [2, 3],
        ],
      },
    ]);
    const { text } = arrivalMap(timeframe, "", "came");
    const cells = [...text.matchAll(/<td class="number">([\d,]+)<\/td>/g)].map(
      ([, count]) => count,
    );
    expect(cells).toEqual(["2", "8", "3"]);
    expect(drawn(text, "heat level3 blue").join("")).toContain("M0 7h4v1h-4z");
  });
});
