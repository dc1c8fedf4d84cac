/** Which part of guest memory moved when, as a heat map of address and time. */
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { KIND, KINDS, pagesPerBin } from "../moved-pages.ts";
import type { Kind } from "../moved-pages.ts";
import type { Sample } from "../movement.ts";
import { HEAT_LEVELS, heatMap } from "./heat-map.ts";
import type { Heat } from "./heat-map.ts";
import { momentOf } from "./lines.ts";
import type { Markup } from "./markup.ts";
import { exactScale } from "./scale.ts";
import { table } from "./tables.ts";
import { COLOUR_OF, kindsOf, msSince, timeAxis } from "./timeframe.ts";
import type { Timeframe } from "./timeframe.ts";
import { formatValue } from "./units.ts";

/** Cells of the heat map. */
const COLUMNS_MAX = 240;
const ROWS_MAX = 128;
/** Of a cell's pages: from this share on requested ones give it its colour, few as they are. */
const REQUESTED_SHARE = 0.1;

/** Which part of memory came when, by address and time, coloured by kind; and how much in all. */
export function arrivalMap(timeframe: Timeframe, title: string, what: string): Markup {
  const { movement, zeroNs, totalPages } = timeframe;
  const kinds = kindsOf(movement);
  const bytes = totalPages * TARGET_PAGE_SIZE;
  const cells = new Cells(timeframe);
  const time = timeAxis(timeframe);
  const scale = exactScale(time.greatest ?? 0, "ms");
  const addresses = exactScale(bytes, "bytes");
  const end = formatValue(msSince(zeroNs, movement.samples.at(-1)?.endNs ?? zeroNs), "ms");
  return heatMap({
    title,
    caption:
      "A cell is stronger the more of its pages moved then. It has the colour of most of them, or " +
      "that of requests where these are a tenth and more.",
    summary: `${formatValue(bytes, "bytes")} of guest memory ${what} until ${end}: ${kinds
      .map(({ name }) => name)
      .join(", ")}`,
    kinds: KINDS.map((name) => ({ name, colour: COLOUR_OF[name] })),
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
    below: movedTable(cells, totalPages, what),
  });
}

function movedTable(cells: Cells, totalPages: number, what: string): Markup {
  const sums = KINDS.map((name) => ({ name, pages: cells.sum(KIND[name]) }));
  const rows = sums
    .filter(({ pages }) => pages > 0)
    .map(({ name, pages }) => [
      name,
      formatValue(pages, "count"),
      formatValue(pages * TARGET_PAGE_SIZE, "bytes"),
      formatValue((100 * pages) / Math.max(1, totalPages), "%"),
    ]);
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

  /** Pages of a kind in all cells. */
  sum(kind: Kind): number {
    let pages = 0;
    for (let at: number = kind; at < this.#pages.length; at += KINDS.length) {
      pages += this.#pages[at] ?? 0;
    }
    // Parts of pages were spread over columns.
    return Math.round(pages);
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
