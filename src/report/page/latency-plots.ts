/** How long faults waited, or requests were worked at: bars, and shares that were done in time. */
import type { Histogram } from "../histogram.ts";
import { barPlot } from "./bars.ts";
import type { BarSeries } from "./bars.ts";
import { linePlot } from "./lines.ts";
import type { Point } from "./lines.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import { formatValue } from "./units.ts";

/** Latencies of one kind. */
export interface Latencies extends BarSeries {
  /** In more detail than the buckets, where there is any. */
  detail?: Histogram | undefined;
}

export interface LatencyPlots {
  title: string;
  /** What was measured, from when to when. */
  caption: Content;
  /** What is counted, in the plural: "faults". */
  counted: string;
  series: readonly Latencies[];
}

/** Both plots, side by side where there is room. */
export function latencyPlots({ title, caption, counted, series }: LatencyPlots): Markup {
  return html`<div class="plots">
    ${barPlot({ title, caption, counted, series, asShares: series.length > 1 })}${linePlot({
      title: `${title}, cumulative`,
      caption: `Share of ${counted} that took no longer than that.`,
      series: series.map((each) => ({ ...each, points: cumulative(each) })),
      x: { title: "latency", unit: "us", scale: "log" },
      y: { title: `share of ${counted}`, unit: "%", scale: "linear", greatest: 100 },
      shape: "line",
      summary: series.map(summaryOf).join("; "),
      emptyText: `No ${counted} were counted.`,
    })}
  </div>`;
}

function summaryOf(latencies: Latencies): string {
  const points = cumulative(latencies);
  const within = (percent: number): string => {
    return formatValue(points.find(({ y }) => y >= percent)?.x ?? 0, "us");
  };
  return `${latencies.name}: half took at most ${within(50)}, 99 % at most ${within(99)}`;
}

/** From nothing below the fastest to all below the slowest; x in µs, y in percent. */
export function cumulative({ buckets, detail }: Latencies): Point[] {
  const steps =
    detail !== undefined && detail.count > 0
      ? detail.distribution().map(({ belowNs, count }) => ({ x: belowNs / 1000, count }))
      : buckets.map((count, bucket) => ({ x: 2 ** (bucket + 1), count }));
  const all = steps.reduce((sum, { count }) => sum + count, 0);
  if (all === 0) return [];
  const first = steps.findIndex(({ count }) => count > 0);
  const last = steps.findLastIndex(({ count }) => count > 0);
  const least = detail !== undefined && detail.count > 0 ? detail.min / 1000 : 2 ** first;
  let sum = 0;
  const points = steps.slice(first, last + 1).map(({ x, count }) => {
    sum += count;
    return { x, y: (100 * sum) / all };
  });
  return [{ x: least, y: 0 }, ...points];
}
