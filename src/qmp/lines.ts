/** Text that arrives in pieces, cut into lines. */

/** Cuts text into lines, of which none may be longer than a limit. */
export class LineFramer {
  readonly #charactersMax: number;
  /** Pieces of the line that has not ended; joined once, as a line may come in thousands. */
  #pieces: string[] = [];
  #characters = 0;

  constructor(charactersMax: number) {
    this.#charactersMax = charactersMax;
  }

  /**
   * Takes the next piece. Returns the lines that it ends, without their ends and without empty ones;
   * undefined when a line is too long: nothing after that can be trusted.
   */
  take(text: string): string[] | undefined {
    const lines: string[] = [];
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      if (!this.#keep(text.slice(start, end))) return undefined;
      const line = this.#pieces.join("").trim();
      if (line !== "") lines.push(line);
      this.#pieces = [];
      this.#characters = 0;
      start = end + 1;
    }
    return this.#keep(text.slice(start)) ? lines : undefined;
  }

  /** Adds to the line that has not ended; false when it gets too long. */
  #keep(piece: string): boolean {
    this.#characters += piece.length;
    if (this.#characters > this.#charactersMax) return false;
    if (piece !== "") this.#pieces.push(piece);
    return true;
  }
}
