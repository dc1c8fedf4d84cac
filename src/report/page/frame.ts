/**
 * What all plots have around them. Only shapes are drawn as SVG, in a square of 1000 by 1000 that is
 * stretched to the width that there is; text stands beside it as HTML. So text has the same size on a
 * phone as on a desk, which it would not have inside of a picture that is scaled.
 */
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import type { Colour } from "./palette.ts";
import type { Tick } from "./scale.ts";

/** Length of both sides of the square in which shapes are drawn. */
export const SIDE = 1000;

/** One axis: what it measures, and its marks. */
export interface AxisMarks {
  title: string;
  ticks: readonly Tick[];
  /** Without lines across the plot. */
  plain?: boolean;
}

export interface LegendEntry {
  name: string;
  colour: Colour;
  /** Drawn with dashes, so that it is told apart without its colour. */
  dashed?: boolean;
}

export interface FrameOptions {
  title: string;
  /** What the plot shows, in a sentence, for those who do not see it. */
  summary: string;
  /** A sentence or two on how to read it. */
  caption?: Content;
  legend?: readonly LegendEntry[];
  x: AxisMarks;
  y: AxisMarks;
  /** SVG in the square, whose y goes down. */
  shapes: Content;
  /** What stands below the plot. */
  below?: Content;
  /** A further class of style.ts. */
  look?: "heat-map";
}

/** A place on an axis as a coordinate in the square: at most one digit behind the point. */
export function across(place: number): number {
  return Math.round(place * SIDE * 10) / 10;
}

/** The same upwards. */
export function upward(place: number): number {
  return Math.round((1 - place) * SIDE * 10) / 10;
}

/** A plot with its axes, its legend, and text for those who do not see it. */
export function frame(options: FrameOptions): Markup {
  const { title, summary, caption, legend = [], x, y, shapes, below, look = "" } = options;
  return html`<figure class="plot ${look}">
    <figcaption>
      <h3>${title}</h3>
      ${caption === undefined ? undefined : html`<p>${caption}</p>`}
    </figcaption>
    ${legendOf(legend)}
    <div class="chart">
      <div class="y-title">${y.title}</div>
      ${yAxis(y.ticks)}<svg
        viewBox="0 0 ${SIDE} ${SIDE}"
        preserveAspectRatio="none"
        role="img"
        aria-label="${`${title}: ${summary}`}"
      >
        ${gridLines(x, y)}${shapes}</svg
      >${xAxis(x.ticks)}
      <div class="x-title">${x.title}</div>
    </div>
    ${below}
  </figure> `;
}

/** In place of a plot that there are no data for. */
export function emptyPlot(title: string, why: string): Markup {
  return html`<figure class="plot empty">
    <figcaption><h3>${title}</h3></figcaption>
    <p>${why}</p>
  </figure> `;
}

export function legendOf(entries: readonly LegendEntry[]): Markup | undefined {
  if (entries.length === 0) return undefined;
  const items = entries.map(({ name, colour, dashed }) => {
    const shape = dashed === true ? "key dashed" : "key";
    return html`<li><span class="${shape} ${colour}"></span>${name}</li>`;
  });
  return html`<ul class="legend">
    ${items}
  </ul> `;
}

function gridLines(x: AxisMarks, y: AxisMarks): Markup {
  const upright = x.plain === true ? [] : x.ticks.map(({ place }) => `M${across(place)} 0V${SIDE}`);
  const level = y.plain === true ? [] : y.ticks.map(({ place }) => `M0 ${upward(place)}H${SIDE}`);
  return html`<path class="grid" d="${[...upright, ...level].join("")}" />`;
}

function percent(place: number): string {
  return `${Math.round(place * 10_000) / 100}%`;
}

/** The longest label stands there once more, unseen: it gives the column its width. */
function yAxis(ticks: readonly Tick[]): Markup {
  const longest = ticks.reduce(
    (most, { label }) => (label.length > most.length ? label : most),
    "",
  );
  const labels = ticks.map(({ place, label }) => {
    return html`<span style="bottom:${percent(place)}">${label}</span>`;
  });
  return html`<div class="y-axis" aria-hidden="true"><i>${longest}</i>${labels}</div>`;
}

/** Nearer than that to the last label, which is moved to the left, there is no room for another. */
const LAST_LABEL_ROOM = 0.13;

/** Labels at the ends do not stick out; on a phone every other one is left out. */
export function xAxis(ticks: readonly Tick[]): Markup {
  const end = ticks.at(-1)?.place ?? 0;
  const shown = ticks.filter(({ place }, index) => {
    return index === ticks.length - 1 || end - place >= LAST_LABEL_ROOM;
  });
  const labels = shown.map(({ place, label }, index) => {
    const edge = place < 0.04 ? "begin" : place > 0.96 ? "end" : "";
    const kinds = [edge, index % 2 === 1 ? "odd" : ""].filter((kind) => kind !== "").join(" ");
    return html`<span class="${kinds}" style="left:${percent(place)}">${label}</span>`;
  });
  return html`<div class="x-axis" aria-hidden="true">${labels}</div>`;
}
