/** Several measured things side by side: the median as a dot, from least to greatest as a line. */
import { across, emptyPlot, SIDE, xAxis } from "./frame.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import type { Colour } from "./palette.ts";
import { linearScale, logScale } from "./scale.ts";
import type { Scale } from "./scale.ts";
import { formatValue } from "./units.ts";
import type { PlotUnit } from "./units.ts";

export interface SpreadRow {
  name: string;
  colour: Colour;
  median: number;
  least: number;
  greatest: number;
}

export interface SpreadPlot {
  title: string;
  caption?: Content;
  rows: readonly SpreadRow[];
  unit: PlotUnit;
  better: "less" | "more";
}

/** Where the greatest is that many times the least, a line from 0 would hide the least. */
const LOG_FROM_RATIO = 30;

/** Rows of dots with their spread over one axis. Rows without a median are left out. */
export function spreadPlot(plot: SpreadPlot): Markup {
  const { title, caption, unit, better } = plot;
  const rows = plot.rows.filter(({ median }) => Number.isFinite(median));
  if (rows.length === 0) return emptyPlot(title, "Nothing was measured.");
  const scale = scaleFor(rows, unit);
  const summary = rows.map((row) => `${row.name} ${formatValue(row.median, unit)}`).join(", ");
  const text = `${title}, medians: ${summary}; ${better} is better`;
  return html`<figure class="plot spreads" role="group" aria-label="${text}">
    <figcaption>
      <h3>${title}</h3>
      <p>
        ${caption}${caption === undefined ? undefined : " "}${better === "less" ? "Less is better." : "More is better."}
      </p>
    </figcaption>
    <div class="rows">
      ${rows.map((row) => rowOf(row, unit, scale))}<span class="axis-name"></span
      >${xAxis(scale.ticks)}
    </div>
  </figure> `;
}

function scaleFor(rows: readonly SpreadRow[], unit: PlotUnit): Scale {
  const least = Math.min(...rows.map((row) => row.least));
  const greatest = Math.max(...rows.map((row) => row.greatest));
  const wide = least > 0 && greatest / least > LOG_FROM_RATIO;
  return wide ? logScale(least, greatest, unit) : linearScale(greatest, unit);
}

function rowOf(row: SpreadRow, unit: PlotUnit, scale: Scale): Markup {
  const [low, middle, high] = [row.least, row.median, row.greatest].map((value) => {
    return across(scale.place(value));
  });
  const grid = scale.ticks.map(({ place }) => `M${across(place)} 0V${SIDE}`).join("");
  const half = SIDE / 2;
  const ends = `${formatValue(row.least, unit)} – ${formatValue(row.greatest, unit)}`;
  return html`<span class="name">${row.name}</span
    ><span class="value"><b>${formatValue(row.median, unit)}</b> <small>${ends}</small></span
    ><svg
      class="${row.colour}"
      viewBox="0 0 ${SIDE} ${SIDE}"
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <path class="grid" d="${grid}" />
      <path class="range" d="${`M${low} ${half}H${high}`}" />
      <path class="dot" d="${`M${middle} ${half}h0`}" />
    </svg>`;
}
