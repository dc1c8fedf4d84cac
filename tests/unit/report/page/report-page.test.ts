/** The page of a report as text: that nothing gets out of its place, and what stands for no data. */
import { describe, expect, test } from "bun:test";
import { qemuFigures } from "../../../../src/guests/qemu/migration.ts";
import { Histogram } from "../../../../src/report/histogram.ts";
import { createMovedPages, KIND, KINDS, MOVED_BINS } from "../../../../src/report/moved-pages.ts";
import { MovementLog } from "../../../../src/report/movement.ts";
import type { Observations } from "../../../../src/report/observations.ts";
import { cumulative } from "../../../../src/report/page/latency-plots.ts";
import { movedPages } from "../../../../src/report/page/timeframe.ts";
import { reportPage } from "../../../../src/report/page/report-page.ts";
import type { DestReport, SourceReport } from "../../../../src/report/report.ts";
import { destReport, sourceReport } from "../fixtures/reports.ts";

const UNSEEN: Observations = { zeroNs: 0, moments: [], movement: undefined, latencies: undefined };
const MS = 1e6;

/** A page without the JSON, in which names stand once more. */
const shown = (page: string): string => page.replace(/<pre id="report">[^<]*<\/pre>/, "");

/** Everything moved: half in precopy, a quarter of the rest on request. */
function moving(): MovementLog {
  const counts = new Uint32Array(createMovedPages());
  const log = new MovementLog(MOVED_BINS, KINDS.length);
  log.take(counts, 1000 * MS, undefined);
  for (let bin = 0; bin < MOVED_BINS; bin++) {
    const kind = bin < 256 ? KIND.precopy : bin % 4 === 0 ? KIND.request : KIND.push;
    counts[kind * MOVED_BINS + bin] = 512;
    log.take(counts, (1001 + bin) * MS, bin < 256 ? undefined : bin / MOVED_BINS);
  }
  return log;
}

const OBSERVED: Observations = {
  zeroNs: 1000 * MS,
  moments: [{ name: "the guest ran here", atNs: 1257 * MS }],
  movement: moving(),
  latencies: undefined,
};

describe("the page of a report", () => {
  test("holds hostile names as text, and the report as it is", () => {
    const name = `</pre></title><script>alert("1")</script><img src=x>&amp;\u001b[2J`;
    const report: SourceReport = {
      ...sourceReport,
      ...{ guest: name, peer: name, outcome: "failed", error: { code: "X", message: name } },
    };
    const page = reportPage(report, { ...OBSERVED, moments: [{ name, atNs: 1100 * MS }] });
    // A page in an error message would be longer than a screen.
    expect(["<script", "<img", "\u001b"].filter((text) => page.includes(text))).toEqual([]);
    expect(page.split("</pre>")).toHaveLength(2);
    const json = /<pre id="report">([^<]*)<\/pre>/.exec(page)?.[1] ?? "";
    const entities: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', "#39": "'" };
    const text = json.replace(
      /&(lt|gt|amp|quot|#39);/g,
      (_, entity: string) => entities[entity] ?? "",
    );
    expect(JSON.parse(text)).toEqual(report);
  });

  test("has a plot of each kind, and every kind's pages in a table", () => {
    const page = reportPage(destReport, OBSERVED);
    expect(page.match(/<figure/g)).toHaveLength(5);
    expect(page.match(/<svg[^>]*role="img"/g)).toHaveLength(5);
    expect(page.includes("plot empty")).toBe(false);
    expect(movedPages(moving())).toEqual([256 * 512, 192 * 512, 64 * 512, 0]);
    for (const pages of ["131,072", "98,304", "32,768"])
      expect(page.includes(`>${pages}</td>`)).toBe(true);
    expect(page.includes("the guest ran here at 257 ms")).toBe(true);
    expect(page.length).toBeLessThan(256 * 1024);
  });

  test("says why there are no plots", () => {
    const nothing: DestReport = {
      ...destReport,
      faults: { ...destReport.faults, latencyNs: null },
    };
    const page = reportPage(nothing, UNSEEN);
    expect(page.includes("No page was missing when the guest touched it.")).toBe(true);
    const snapshot = { directory: "/kept", bytes: 1, pagesStored: 1, deviceBytes: 1 };
    const kept = reportPage({ ...nothing, snapshot }, UNSEEN);
    expect(kept.includes("The guest is kept and runs nowhere")).toBe(true);
    expect(page.includes("Nothing was watched of this migration.")).toBe(true);
    expect(page.includes("<svg")).toBe(false);
    const still = reportPage(nothing, { ...UNSEEN, movement: new MovementLog(1, KINDS.length) });
    expect(still.includes("No pages moved.")).toBe(true);
  });

  test("of a QEMU that was driven has what that tells: no map, its own latencies", () => {
    const log = new MovementLog(1, KINDS.length);
    log.take(new Uint32Array(KINDS.length), 0, undefined);
    log.take(new Uint32Array([100, 0, 0, 0]), 10 * MS, 0.5);
    const report: SourceReport = { ...sourceReport, requestServiceNs: null };
    const page = reportPage(report, { ...UNSEEN, movement: log });
    expect(page.includes("QEMU does not say which pages it sends.")).toBe(true);
    expect(page.includes("is known only at the destination")).toBe(true);
    expect(page.includes("Residency")).toBe(true);
    const buckets = Array.from({ length: 24 }, (_, index) => (index === 8 ? 5 : 0));
    const qemu = { ...qemuFigures("11.1.0", {}), latencyBuckets: buckets };
    const seen = reportPage({ ...destReport, qemu }, UNSEEN);
    expect(seen.includes("faults, 256 µs to 512 µs: 5 faults")).toBe(true);
  });

  test("leaves out what did not happen", () => {
    const page = shown(reportPage({ ...sourceReport, rounds: [], switchover: null }, UNSEEN));
    expect(page.includes("Precopy rounds")).toBe(false);
    expect(page.includes("Why then")).toBe(false);
    expect(/>null<|NaN|undefined/.exec(page)).toBeNull();
  });
});

describe("the share of faults that took no longer", () => {
  test("is as fine as the histogram, from the fastest to the slowest", () => {
    const detail = new Histogram();
    for (const us of [100, 100, 150, 900]) detail.record(us * 1000);
    const buckets = detail.microsecondBuckets();
    const points = cumulative({ name: "", colour: "blue", buckets, detail });
    expect(points.map(({ y }) => y)).toEqual([0, 50, 75, 100]);
    const wanted = [100, 100, 150, 900];
    points.forEach(({ x }, index) => expect(x / (wanted[index] ?? 0)).toBeCloseTo(1, 1));
  });

  test("is by powers of two where only these are known, and empty of nothing", () => {
    const buckets = Array.from({ length: 24 }, (_, index) => (index === 3 || index === 5 ? 2 : 0));
    expect(cumulative({ name: "", colour: "blue", buckets })).toEqual([
      ...[
        { x: 8, y: 0 },
        { x: 16, y: 50 },
        { x: 32, y: 50 },
        { x: 64, y: 100 },
      ],
    ]);
    expect(cumulative({ name: "", colour: "blue", buckets: [0, 0] })).toEqual([]);
    const none = new Histogram();
    expect(cumulative({ name: "", colour: "blue", buckets: [1], detail: none })).toHaveLength(2);
  });
});
