/** A bar for each power of two of microseconds, as latencies are counted. */
import { across, emptyPlot, frame, upward } from "./frame.ts";
import type { LegendEntry } from "./frame.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import type { Colour } from "./palette.ts";
import { linearScale } from "./scale.ts";
import type { Tick } from "./scale.ts";
import { formatValue } from "./units.ts";

export interface BarSeries {
  name: string;
  colour: Colour;
  /** Counts of [2^N, 2^(N+1)) µs. */
  buckets: readonly number[];
}

export interface BarPlot {
  title: string;
  caption?: Content;
  series: readonly BarSeries[];
  /** What is counted, in the plural: "faults". */
  counted: string;
  /** As shares of each series, for series that have not the same number of counts. */
  asShares?: boolean;
}

/** Most marks below the bars. */
const TICKS_MAX = 7;
/** Least height of a bar that stands for something: the rare slow fault is the interesting one. */
const SLIVER = 0.004;
/** Room between the bars of two buckets. */
const GAP = 0.12;

const total = (buckets: readonly number[]): number => buckets.reduce((sum, one) => sum + one, 0);

/** Latencies by power of two of µs: bars of several series stand side by side. */
export function barPlot(plot: BarPlot): Markup {
  const { title, caption, counted, asShares = false } = plot;
  const series = plot.series.filter(({ buckets }) => total(buckets) > 0);
  if (series.length === 0) return emptyPlot(title, `No ${counted} were counted.`);
  const first = Math.min(...series.map(({ buckets }) => buckets.findIndex((one) => one > 0)));
  const last = Math.max(...series.map(({ buckets }) => buckets.findLastIndex((one) => one > 0)));
  const slots = last - first + 1;
  const heights = series.map(({ buckets }) => {
    const all = asShares ? total(buckets) / 100 : 1;
    return buckets.slice(first, last + 1).map((count) => count / all);
  });
  const unit = asShares ? "%" : "count";
  const scale = linearScale(Math.max(...heights.flat()), unit);
  const width = (1 - GAP) / series.length;
  const bars = series.map(({ name, colour }, index) => {
    const rects = (heights[index] ?? []).map((height, slot) => {
      if (height === 0) return undefined;
      const left = across((slot + GAP / 2 + index * width) / slots);
      const top = upward(Math.max(SLIVER, scale.place(height)));
      const title_ = `${name}, ${bucketText(first + slot)}: ${formatValue(height, unit)} ${asShares ? `of ${counted}` : counted}`;
      return html`<rect
        x="${left}"
        y="${top}"
        width="${across(width / slots)}"
        height="${1000 - top}"
        ><title>${title_}</title></rect
      >`;
    });
    return html`<g class="fill ${colour}">${rects}</g>`;
  });
  return frame({
    title,
    ...(caption === undefined ? {} : { caption }),
    summary: summaryOf(series, counted),
    legend: legendFor(series),
    x: { title: "latency", ticks: bucketTicks(first, slots), plain: true },
    y: { title: asShares ? `share of ${counted}` : counted, ticks: scale.ticks },
    shapes: bars,
  });
}

/** Where each is slowest and how many there are, in words. */
function summaryOf(series: readonly BarSeries[], counted: string): string {
  const parts = series.map(({ name, buckets }) => {
    const most = buckets.indexOf(Math.max(...buckets));
    return `${name}: ${formatValue(total(buckets), "count")} ${counted}, most of ${bucketText(most)}`;
  });
  return parts.join("; ");
}

function legendFor(series: readonly BarSeries[]): LegendEntry[] {
  return series.length < 2 ? [] : series.map(({ name, colour }) => ({ name, colour }));
}

function bucketText(bucket: number): string {
  return `${formatValue(2 ** bucket, "us")} to ${formatValue(2 ** (bucket + 1), "us")}`;
}

/** Marks at the edges of buckets. */
function bucketTicks(first: number, slots: number): Tick[] {
  const every = Math.ceil(slots / (TICKS_MAX - 1));
  const edges = Array.from({ length: Math.floor(slots / every) + 1 }, (_, index) => index * every);
  return edges.map((edge) => {
    return { place: edge / slots, label: formatValue(2 ** (first + edge), "us") };
  });
}
