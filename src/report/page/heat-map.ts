/** What happened where and when, as coloured cells; equal neighbours in a row are one rectangle. */
import { emptyPlot, frame, SIDE } from "./frame.ts";
import type { AxisMarks, LegendEntry } from "./frame.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";

/** How strongly a cell is coloured. */
export const HEAT_LEVELS = 4;

/** A cell's place in the legend, and its strength from 1 to HEAT_LEVELS. */
export interface Heat {
  kind: number;
  level: number;
}

export interface HeatMap {
  title: string;
  caption?: Content;
  summary: string;
  kinds: readonly LegendEntry[];
  columns: number;
  /** The first row is on top. */
  rows: number;
  cell: (column: number, row: number) => Heat | undefined;
  x: AxisMarks;
  y: AxisMarks;
  emptyText: string;
  /** SVG in the square of frame.ts, over the cells. */
  over?: Content;
  below?: Content;
}

/** One path for each colour and strength, whose parts are runs of cells. */
export function heatMap(map: HeatMap): Markup {
  const { title, caption, summary, kinds, columns, rows, x, y, below } = map;
  const runs = runsOf(map);
  if (runs.size === 0) return emptyPlot(title, map.emptyText);
  const paths = [...runs].map(([key, path]) => {
    const kind = kinds[kindOf(key)];
    const level = key % (HEAT_LEVELS + 1);
    return html`<path class="heat level${level} ${kind?.colour}" d="${path}" />`;
  });
  return frame({
    title,
    ...(caption === undefined ? {} : { caption }),
    ...(below === undefined ? {} : { below }),
    summary,
    look: "heat-map",
    legend: kinds.filter((_, kind) => [...runs.keys()].some((key) => kindOf(key) === kind)),
    x: { ...x, plain: true },
    y: { ...y, plain: true },
    // The cells are a square of their own, in which they have whole coordinates.
    shapes: html`<svg
        viewBox="0 0 ${columns} ${rows}"
        width="${SIDE}"
        height="${SIDE}"
        preserveAspectRatio="none"
      >
        ${paths}</svg
      >${map.over}`,
  });
}

/** Kind and level as one number. */
function keyOf({ kind, level }: Heat): number {
  return kind * (HEAT_LEVELS + 1) + level;
}

function kindOf(key: number): number {
  return Math.floor(key / (HEAT_LEVELS + 1));
}

/** By kind and level: the path of all runs. */
function runsOf({ columns, rows, cell }: HeatMap): Map<number, string> {
  const parts = new Map<number, string[]>();
  const end = (key: number, from: number, to: number, row: number): void => {
    if (key < 0) return;
    const list = parts.get(key) ?? [];
    list.push(`M${from} ${row}h${to - from}v1h${from - to}z`);
    parts.set(key, list);
  };
  for (let row = 0; row < rows; row++) {
    let [key, from] = [-1, 0];
    for (let column = 0; column < columns; column++) {
      const heat = cell(column, row);
      const now = heat === undefined ? -1 : keyOf(heat);
      if (now === key) continue;
      end(key, from, column, row);
      [key, from] = [now, column];
    }
    end(key, from, columns, row);
  }
  return new Map([...parts].map(([key, list]) => [key, list.join("")]));
}
