/** Values over time, over an axis of a benchmark, or as a share that grows: lines, steps, areas. */
import { across, emptyPlot, frame, SIDE, upward } from "./frame.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import type { Colour } from "./palette.ts";
import { exactScale, linearScale, logScale } from "./scale.ts";
import type { Scale } from "./scale.ts";
import { formatValue } from "./units.ts";
import type { PlotUnit } from "./units.ts";

export interface Point {
  x: number;
  y: number;
  /** The ends of what was measured there, where that is shown. */
  least?: number;
  greatest?: number;
}

export interface Series {
  name: string;
  colour: Colour;
  /** By rising x. */
  points: readonly Point[];
  dashed?: boolean;
}

/** Something that happened at a place of the x axis. */
export interface Moment {
  x: number;
  name: string;
}

export interface Axis {
  title: string;
  unit: PlotUnit;
  /** "exact" ends with the last value, not with a round one. */
  scale: "linear" | "log" | "exact";
  /** Ends of the axis, where they are not those of the values. */
  least?: number;
  greatest?: number;
}

export interface LinePlot {
  title: string;
  caption?: Content;
  series: readonly Series[];
  x: Axis;
  y: Axis;
  /**
   * "line" from point to point; "step": a value holds until the next; "stack": steps, filled, one
   * series on top of the other, all with the same x.
   */
  shape: "line" | "step" | "stack";
  moments?: readonly Moment[];
  /** What the lines show, in a sentence, where their greatest and last values do not say it. */
  summary?: string;
  /** Instead of a plot without any point. */
  emptyText?: string;
  below?: Content;
}

/** Places at which the values are told to a pointer that rests there. */
const HOVER_PLACES_MAX = 80;
/** Points that are few enough to have a dot each. */
const DOTS_MAX = 24;

/** Draws the series over each other in their order. */
export function linePlot(plot: LinePlot): Markup {
  const { title, caption, x, y, moments = [], below } = plot;
  const series = plot.series.filter(({ points }) => points.length > 0);
  if (series.length === 0) return emptyPlot(title, plot.emptyText ?? "Nothing was measured.");
  const drawn = plot.shape === "stack" ? stacked(series) : series;
  const xScale = scaleOf(
    x,
    drawn.flatMap(({ points }) => points.map((point) => point.x)),
  );
  const yScale = scaleOf(
    y,
    drawn.flatMap(({ points }) => points.flatMap(valuesOf)),
  );
  return frame({
    title,
    ...(caption === undefined ? {} : { caption }),
    ...(below === undefined ? {} : { below }),
    summary: plot.summary ?? summaryOf(series, y),
    legend: series.length > 1 ? series : [],
    x: { title: x.title, ticks: xScale.ticks },
    y: { title: y.title, ticks: yScale.ticks },
    shapes: [
      plot.shape === "stack"
        ? drawn.toReversed().map((one) => areaOf(one, xScale, yScale))
        : drawn.map((one) => lineOf(one, xScale, yScale, plot.shape === "step")),
      moments.map(({ x: at, name }) => momentOf(xScale.place(at), name)),
      hoverTexts(series, plot, xScale),
    ],
  });
}

function valuesOf({ y, least = y, greatest = y }: Point): number[] {
  return [y, least, greatest];
}

function scaleOf(axis: Axis, values: readonly number[]): Scale {
  const greatest = axis.greatest ?? values.reduce((most, one) => Math.max(most, one), 0);
  if (axis.scale === "exact") return exactScale(greatest, axis.unit);
  if (axis.scale === "linear") return linearScale(greatest, axis.unit, axis.least);
  const positive = values.filter((value) => value > 0);
  const least = axis.least ?? positive.reduce((low, one) => Math.min(low, one), greatest);
  return logScale(least, greatest, axis.unit);
}

/** Each series on top of those before it. */
function stacked(series: readonly Series[]): Series[] {
  const sums: number[] = [];
  return series.map((one) => {
    const points = one.points.map((point, index) => {
      const sum = (sums[index] ?? 0) + point.y;
      sums[index] = sum;
      return { x: point.x, y: sum };
    });
    return { ...one, points };
  });
}

function pathOf(points: readonly Point[], xScale: Scale, yScale: Scale, steps: boolean): string {
  return points
    .map((point, index) => {
      const [left, top] = [across(xScale.place(point.x)), upward(yScale.place(point.y))];
      if (index === 0) return `M${left} ${top}`;
      return steps ? `H${left}V${top}` : `L${left} ${top}`;
    })
    .join("");
}

function areaOf(series: Series, xScale: Scale, yScale: Scale): Markup {
  const { points, colour } = series;
  const path = pathOf(points, xScale, yScale, true);
  const begin = across(xScale.place(points[0]?.x ?? 0));
  return html`<path class="fill ${colour}" d="${`${path}V${SIDE}H${begin}z`}" />`;
}

function lineOf(series: Series, xScale: Scale, yScale: Scale, steps: boolean): Markup {
  const { points, colour, dashed } = series;
  const kind = dashed === true ? "line dashed" : "line";
  const line = html`<path
    class="${kind} ${colour}"
    d="${pathOf(points, xScale, yScale, steps)}"
  />`;
  if (steps || points.length > DOTS_MAX) return line;
  const spreads = points.flatMap(({ x, y, least = y, greatest = y }) => {
    if (least === greatest) return [];
    const [low, high] = [upward(yScale.place(least)), upward(yScale.place(greatest))];
    return [`M${across(xScale.place(x))} ${low}V${high}`];
  });
  // A line of no length with round ends is a dot, which no stretching makes an ellipse.
  const dots = points.map(({ x, y }) => {
    return `M${across(xScale.place(x))} ${upward(yScale.place(y))}h0`;
  });
  return html`<g class="${colour}"
    >${line}<path class="spread" d="${spreads.join("")}" /><path class="dot" d="${dots.join("")}"
  /></g>`;
}

/** An upright line. */
export function momentOf(place: number, name: string): Markup {
  return html`<path class="moment" d="${`M${across(place)} 0V${SIDE}`}"
    ><title>${name}</title></path
  >`;
}

/** The last value of each, in words. */
function summaryOf(series: readonly Series[], y: Axis): string {
  const parts = series.map(({ name, points }) => {
    const most = points.reduce((high, point) => Math.max(high, point.y), 0);
    const last = points.at(-1)?.y ?? 0;
    return `${name} at most ${formatValue(most, y.unit)}, at the end ${formatValue(last, y.unit)}`;
  });
  return parts.join("; ");
}

/** Unseen strips over the whole height that tell their values to a pointer that rests on them. */
function hoverTexts(series: readonly Series[], plot: LinePlot, xScale: Scale): Markup {
  const all = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))];
  const sorted = all.toSorted((a, b) => a - b);
  const every = Math.ceil(sorted.length / HOVER_PLACES_MAX);
  const places = sorted.filter((_, index) => index % every === 0);
  const strips = places.map((x, index) => {
    const left = across(xScale.place(x));
    const next = places[index + 1];
    const right = next === undefined ? SIDE : across(xScale.place(next));
    const values = series.map(({ name, points }) => {
      const point = points.findLast((one) => one.x <= x);
      return point === undefined ? "" : `\n${name}: ${formatValue(point.y, plot.y.unit)}`;
    });
    const text = `${plot.x.title} ${formatValue(x, plot.x.unit)}${values.join("")}`;
    return html`<rect x="${left}" width="${Math.max(1, Math.round(right - left))}" height="${SIDE}"
      ><title>${text}</title></rect
    >`;
  });
  return html`<g class="hover">${strips}</g>`;
}
