/** Figures as people read them: the few that matter as tiles, all others in tables. */
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";

/** A figure that is read first. */
export interface Tile {
  label: string;
  value: Content;
  /** What it means, or where it comes from. */
  note?: Content;
}

export function tiles(list: readonly Tile[]): Markup {
  const items = list.map(({ label, value, note }) => {
    const small = note === undefined ? undefined : html`<small>${note}</small>`;
    return html`<div>
      <dt>${label}</dt>
      <dd>${value}${small}</dd>
    </div>`;
  });
  return html`<dl class="tiles">${items}</dl> `;
}

export interface Table {
  /** Read out before the table, and shown where nothing else says what it is. */
  caption: string;
  head: readonly string[];
  /** The first cell of a row says what the row is of. */
  rows: readonly (readonly Content[])[];
  /** For programs that read the page. */
  id?: string;
  /** Columns from the left that hold text; all others hold numbers. */
  textColumns?: number;
}

/** A table; one that is too wide for a phone is scrolled inside of its own frame. */
export function table({ caption, head, rows, id, textColumns = 1 }: Table): Markup {
  const kind = (column: number): string => (column < textColumns ? "text" : "number");
  const heads = head.map((cell, column) => {
    return html`<th scope="col" class="${kind(column)}">${cell}</th>`;
  });
  const lines = rows.map((row) => {
    const cells = row.map((cell, column) => {
      return column === 0
        ? html`<th scope="row">${cell}</th>`
        : html`<td class="${kind(column)}">${cell}</td>`;
    });
    return html`<tr>
      ${cells}
    </tr> `;
  });
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}">
    <table ${id === undefined ? undefined : html`id="${id}"`}>
      <caption>
        ${caption}
      </caption>
      <thead>
        <tr>
          ${heads}
        </tr>
      </thead>
      <tbody>
        ${lines}
      </tbody>
    </table>
  </div> `;
}

/** Pairs of what and how much. */
export function facts(caption: string, rows: readonly (readonly [string, Content])[]): Markup {
  const lines = rows.map(([what, value]) => {
    return html`<tr>
      <th scope="row">${what}</th>
      <td class="text">${value}</td>
    </tr> `;
  });
  return html`<table class="facts">
    <caption>
      ${caption}
    </caption>
    <tbody>
      ${lines}
    </tbody>
  </table> `;
}

/** Something long that is there for whoever opens it; `id` is for programs that read its text. */
export function folded(summary: string, id: string, text: string): Markup {
  return html`<details>
    <summary>${summary}</summary>
    <pre id="${id}">${text}</pre>
  </details> `;
}
