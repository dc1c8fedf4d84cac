/** How guest memory moved: how fast, how much of it was there, and which part of it came when. */
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { KIND, KINDS, pagesPerBin } from "../moved-pages.ts";
import type { KindName } from "../moved-pages.ts";
import type { Movement, Sample } from "../movement.ts";
import type { LegendEntry } from "./frame.ts";
import { HEAT_LEVELS, heatMap } from "./heat-map.ts";
import type { Heat } from "./heat-map.ts";
import { linePlot, momentOf } from "./lines.ts";
import type { Axis, Moment, Point } from "./lines.ts";
import type { Content, Markup } from "./markup.ts";
import type { Colour } from "./palette.ts";
import { exactScale } from "./scale.ts";
import { table } from "./tables.ts";
import { formatValue } from "./units.ts";

/** What plots over time have in common. */
export interface Timeframe {
  movement: Movement;
  /** What times are counted from, on the monotonic clock. */
  zeroNs: number;
  /** Of the guest. */
  totalPages: number;
  moments: readonly Moment[];
}

const COLOUR_OF: Readonly<Record<KindName, Colour>> = {
  precopy: "slate",
  push: "blue",
  request: "vermilion",
  replay: "green",
};

/** Steps of a plot over time. */
const STEPS_MAX = 150;
/** Cells of the heat map. */
const COLUMNS_MAX = 240;
const ROWS_MAX = 128;
/** Of a cell's pages: from this share on requested ones give it its colour, few as they are. */
const REQUESTED_SHARE = 0.1;

const msSince = (zeroNs: number, atNs: number): number => (atNs - zeroNs) / 1e6;

function timeAxis({ movement, zeroNs, moments }: Timeframe): Axis {
  const ends = [movement.samples.at(-1)?.endNs ?? zeroNs].map((ns) => msSince(zeroNs, ns));
  const greatest = Math.max(...ends, ...moments.map(({ x }) => x));
  return { title: "time", unit: "ms", scale: "exact", greatest };
}

/** Pages of each kind in a sample. */
function pagesByKind({ pages }: Sample, bins: number): number[] {
  return KINDS.map((_, kind) => {
    let sum = 0;
    for (let bin = 0; bin < bins; bin++) sum += pages[kind * bins + bin] ?? 0;
    return sum;
  });
}

/** Pages that moved in all, for each of KINDS. */
export function movedPages({ samples, bins }: Movement): number[] {
  const sums = KINDS.map(() => 0);
  for (const sample of samples) {
    pagesByKind(sample, bins).forEach((count, kind) => (sums[kind] = (sums[kind] ?? 0) + count));
  }
  return sums;
}

/** Kinds of which there is any, with their place in KINDS. */
function kindsOf(movement: Movement): { name: KindName; kind: number; colour: Colour }[] {
  const sums = movedPages(movement);
  return KINDS.map((name, kind) => ({ name, kind, colour: COLOUR_OF[name] })).filter(
    ({ kind }) => (sums[kind] ?? 0) > 0,
  );
}

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

/** Which part of memory came when, by address and time, coloured by kind; and how much in all. */
export function arrivalMap(timeframe: Timeframe, title: string, what: string): Markup {
  const { movement, zeroNs, totalPages } = timeframe;
  const kinds = kindsOf(movement);
  const bytes = totalPages * TARGET_PAGE_SIZE;
  const cells = new Cells(timeframe);
  const time = timeAxis(timeframe);
  const scale = exactScale(time.greatest ?? 0, "ms");
  const addresses = exactScale(bytes, "bytes");
  const legend: LegendEntry[] = KINDS.map((name) => ({ name, colour: COLOUR_OF[name] }));
  const end = formatValue(msSince(zeroNs, movement.samples.at(-1)?.endNs ?? zeroNs), "ms");
  return heatMap({
    title,
    caption:
      "A cell is stronger the more of its pages moved then. It has the colour of most of them, or " +
      "that of requests where these are a tenth and more.",
    summary: `${formatValue(bytes, "bytes")} of guest memory ${what} until ${end}: ${kinds
      .map(({ name }) => name)
      .join(", ")}`,
    kinds: legend,
    columns: cells.columns,
    rows: cells.rows,
    cell: (column, row) => cells.heat(column, row),
    x: { title: time.title, ticks: scale.ticks },
    y: {
      title: "address in RAM, all blocks one after the other",
      ticks: addresses.ticks.map(({ place, label }) => ({ place: 1 - place, label })),
    },
    emptyText: "No pages moved.",
    over: timeframe.moments.map(({ x, name }) => momentOf(scale.place(x), name)),
    below: movedTable(movement, totalPages, what),
  });
}

function movedTable(movement: Movement, totalPages: number, what: string): Markup {
  const sums = movedPages(movement);
  const rows = kindsOf(movement).map(({ name, kind }) => {
    const pages = sums[kind] ?? 0;
    return [
      name,
      formatValue(pages, "count"),
      formatValue(pages * TARGET_PAGE_SIZE, "bytes"),
      totalPages === 0 ? "" : formatValue((100 * pages) / totalPages, "%"),
    ];
  });
  const caption = `Pages that ${what}, by kind`;
  return table({ id: "moved", caption, head: ["kind", "pages", "memory", "of RAM"], rows });
}

/** The cells of the heat map: pages by kind, for columns of equal time and rows of equal memory. */
class Cells {
  readonly columns: number;
  readonly rows: number;
  readonly #pages: Float64Array;
  /** Pages of memory in a row. */
  readonly #perRow: number;

  constructor(timeframe: Timeframe) {
    const { movement, totalPages, zeroNs } = timeframe;
    const { samples, bins } = movement;
    const endMs = timeAxis(timeframe).greatest ?? 0;
    const perBin = pagesPerBin(totalPages);
    const used = Math.min(bins, Math.ceil(totalPages / perBin));
    const binsPerRow = Math.max(1, Math.ceil(used / ROWS_MAX));
    this.rows = Math.max(1, Math.ceil(used / binsPerRow));
    this.#perRow = binsPerRow * perBin;
    this.columns = Math.max(1, Math.min(COLUMNS_MAX, samples.length));
    this.#pages = new Float64Array(this.columns * this.rows * KINDS.length);
    const columnOf = (ns: number): number => {
      const place = endMs === 0 ? 0 : msSince(zeroNs, ns) / endMs;
      return Math.min(this.columns - 1, Math.max(0, Math.floor(place * this.columns)));
    };
    samples.forEach((sample, index) => {
      const from = columnOf(samples[index - 1]?.endNs ?? movement.beginNs);
      this.#spread(sample, bins, binsPerRow, from, columnOf(sample.endNs));
    });
  }

  /** A sample belongs to all columns that it lies in, in equal parts. */
  #spread({ pages }: Sample, bins: number, binsPerRow: number, from: number, to: number): void {
    pages.forEach((count, at) => {
      if (count === 0) return;
      const kind = Math.floor(at / bins);
      const row = Math.floor((at % bins) / binsPerRow);
      const part = count / (to - from + 1);
      for (let column = from; column <= to; column++) {
        const cell = this.#cellAt(column, row) + kind;
        this.#pages[cell] = (this.#pages[cell] ?? 0) + part;
      }
    });
  }

  #cellAt(column: number, row: number): number {
    return (row * this.columns + column) * KINDS.length;
  }

  heat(column: number, row: number): Heat | undefined {
    const cell = this.#cellAt(column, row);
    const pages = this.#pages.subarray(cell, cell + KINDS.length);
    const all = pages.reduce((sum, count) => sum + count, 0);
    if (all === 0) return undefined;
    const requested = pages[KIND.request] ?? 0;
    const kind = requested >= REQUESTED_SHARE * all ? KIND.request : indexOfMost(pages);
    return { kind, level: levelOf(all / this.#perRow) };
  }
}

function indexOfMost(counts: Float64Array): number {
  let most = 0;
  counts.forEach((count, index) => {
    if (count > (counts[most] ?? 0)) most = index;
  });
  return most;
}

/** Strength by share of a row's pages: a single page can be seen as well as all of them. */
function levelOf(share: number): number {
  if (share >= 0.3) return HEAT_LEVELS;
  if (share >= 0.05) return 3;
  return share >= 0.005 ? 2 : 1;
}
