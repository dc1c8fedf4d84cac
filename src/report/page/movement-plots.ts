/** How fast guest memory moved, and how much of it was there. */
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { KINDS, pagesPerBin } from "../moved-pages.ts";
import type { Movement } from "../movement.ts";
import { linePlot } from "./lines.ts";
import type { Point } from "./lines.ts";
import type { Content, Markup } from "./markup.ts";
import { kindsOf, msSince, pagesByKind, timeAxis } from "./timeframe.ts";
import type { Timeframe } from "./timeframe.ts";

/** Steps of a plot over time. */
const STEPS_MAX = 150;
/** Guest memory a second by kind, one on top of the other. */
export function throughputPlot(timeframe: Timeframe, caption: Content): Markup {
  const { movement, zeroNs, moments } = timeframe;
  const steps = joinedSteps(movement);
  const series = kindsOf(movement).map(({ name, kind, colour }) => {
    const points: Point[] = steps.map(({ beginNs, endNs, pages }) => {
      const seconds = Math.max(1e-6, (endNs - beginNs) / 1e9);
      const bytes = (pages[kind] ?? 0) * TARGET_PAGE_SIZE;
      return { x: msSince(zeroNs, beginNs), y: bytes / seconds };
    });
    const end = msSince(zeroNs, movement.samples.at(-1)?.endNs ?? zeroNs);
    return { name, colour, points: [...points, { x: end, y: points.at(-1)?.y ?? 0 }] };
  });
  return linePlot({
    title: "Throughput",
    caption,
    series,
    x: timeAxis(timeframe),
    y: { title: "guest memory a second", unit: "bytes/s", scale: "linear" },
    shape: "stack",
    moments,
    emptyText: "No pages moved.",
  });
}

interface Step {
  beginNs: number;
  endNs: number;
  /** By kind. */
  pages: number[];
}

/** Samples, as many of them joined as makes them few enough to be seen. */
function joinedSteps({ samples, bins, beginNs }: Movement): Step[] {
  const every = Math.max(1, Math.ceil(samples.length / STEPS_MAX));
  const steps: Step[] = [];
  samples.forEach((sample, index) => {
    const pages = pagesByKind(sample, bins);
    const last = steps.at(-1);
    if (last === undefined || index % every === 0) {
      const begin = samples[index - 1]?.endNs ?? beginNs;
      steps.push({ beginNs: begin, endNs: sample.endNs, pages });
      return;
    }
    last.endNs = sample.endNs;
    last.pages = last.pages.map((count, kind) => count + (pages[kind] ?? 0));
  });
  return steps;
}

/** The share of the guest's memory that is at the destination. */
export function residencyPlot(timeframe: Timeframe, title: string, caption: Content): Markup {
  const { movement, zeroNs, moments } = timeframe;
  const every = Math.max(1, Math.ceil(movement.samples.length / (2 * STEPS_MAX)));
  const points = residency(timeframe).filter((_, index, all) => {
    return index % every === 0 || index === all.length - 1;
  });
  const begin = { x: msSince(zeroNs, movement.beginNs), y: 0 };
  return linePlot({
    title,
    caption,
    series: [
      { name: "there", colour: "blue", points: points.length === 0 ? [] : [begin, ...points] },
    ],
    x: timeAxis(timeframe),
    y: { title: "share of RAM", unit: "%", scale: "linear", greatest: 100 },
    shape: "line",
    moments,
    emptyText: "No pages moved.",
  });
}

/**
 * Where nobody counted what is there, in precopy at the destination, it follows from what came: a
 * round brings each page once, so a bin is full when as many came as it has.
 */
function residency({ movement, zeroNs, totalPages }: Timeframe): Point[] {
  const { bins, samples } = movement;
  const capacity = bins === 1 ? totalPages : pagesPerBin(totalPages);
  const came = new Float64Array(bins);
  return samples.map(({ endNs, pages, resident }) => {
    let full = 0;
    for (let bin = 0; bin < bins; bin++) {
      for (let kind = 0; kind < KINDS.length; kind++) {
        came[bin] = (came[bin] ?? 0) + (pages[kind * bins + bin] ?? 0);
      }
      full += Math.min(capacity, came[bin] ?? 0);
    }
    const share = resident ?? (totalPages === 0 ? 0 : full / totalPages);
    return { x: msSince(zeroNs, endNs), y: 100 * Math.min(1, share) };
  });
}
