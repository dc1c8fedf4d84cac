/** Lines of what people read: a label and what there is to say, and tables. */
import type { Paint } from "../util/terminal.ts";

/** Width of the labels on the left. */
const LABEL_COLUMNS = 12;

/** One line: a label and what there is to say. */
export function labelled(label: string, text: string, paint: Paint): string {
  return `  ${paint.dim(label.padEnd(LABEL_COLUMNS))} ${text}`;
}

/** Columns of text, two blanks apart: the first `left` of them left-aligned, the others right. */
export function alignColumns(rows: readonly (readonly string[])[], left = 0): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, Bun.stringWidth(cell));
    }
  }
  const pad = (cell: string, column: number): string => {
    const blanks = " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell));
    return column < left ? cell + blanks : blanks + cell;
  };
  return rows.map((row) => `  ${row.map(pad).join("  ")}`.trimEnd());
}
