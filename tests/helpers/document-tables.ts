/** The tables of a document in Markdown, cell by cell. */

/** The rows of all tables in `text`, without heads and rules; cells trimmed. */
export function tablesIn(text: string): string[][] {
  return text
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").slice(1, -1))
    .map((cells) => cells.map((cell) => cell.trim()))
    .filter((_, index, rows) => index + 1 >= rows.length || !isRule(rows[index + 1]))
    .filter((cells) => !isRule(cells));
}

function isRule(cells: readonly string[] | undefined): boolean {
  return cells?.every((cell) => /^:?-+:?$/.test(cell)) === true;
}
