/**
 * Standard error as people see it: whole lines, and below them at most one status line that is
 * rewritten in place. Everything for people goes through here, so that a warning never lands in the
 * middle of the progress line.
 */
import { styleText } from "node:util";

/** What a Terminal needs of a stream; process.stderr has it. */
export interface TerminalStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

/** Width assumed when the terminal does not say: what a serial console has. */
const COLUMNS_DEFAULT = 80;

const RETURN = "\r";
const ERASE_TO_END = "\u001b[K";

/** The few styles in use. */
export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

type Style = Parameters<typeof styleText>[0];

/** Styles that write escape sequences, or that change nothing when `enabled` is false. */
export function createPaint(enabled: boolean): Paint {
  const style = (name: Style) => (text: string) =>
    // The stream is not asked again: whether to paint was decided by the caller.
    enabled ? styleText(name, text, { validateStream: false }) : text;
  return {
    bold: style("bold"),
    dim: style("dim"),
    red: style("red"),
    green: style("green"),
    yellow: style("yellow"),
    cyan: style("cyan"),
  };
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Whether colours are welcome on a stream (https://no-color.org). */
export function wantsColours(stream: TerminalStream, environment: Environment): boolean {
  const refused = (environment["NO_COLOR"] ?? "") !== "" || environment["TERM"] === "dumb";
  return stream.isTTY === true && !refused;
}

/** Control characters, but for ends of lines, tabs, and the colours that Paint writes. */
// oxlint-disable-next-line no-control-regex
const CONTROLS = /[\0-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[\d{1,2}m)/g;

/**
 * The text without what a terminal would obey: names and descriptions come from the other end, or
 * from a file, and may hold anything.
 */
export function harmless(text: string): string {
  return text.replace(CONTROLS, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

export class Terminal {
  /** Whether a line can be rewritten in place. */
  readonly interactive: boolean;
  readonly paint: Paint;
  readonly #stream: TerminalStream;
  #status = "";

  constructor(stream: TerminalStream, environment: Environment = process.env) {
    this.#stream = stream;
    this.interactive = stream.isTTY === true && environment["TERM"] !== "dumb";
    this.paint = createPaint(wantsColours(stream, environment));
  }

  /** Width in columns; it is asked each time, because windows are resized. */
  get columns(): number {
    return this.#stream.columns ?? COLUMNS_DEFAULT;
  }

  /** Writes whole lines above the status line. */
  writeLines(text: string): void {
    const shown = harmless(text);
    const lines = shown.endsWith("\n") ? shown : `${shown}\n`;
    if (this.#status === "") {
      this.#stream.write(lines);
    } else {
      this.#stream.write(`${RETURN}${ERASE_TO_END}${lines}${this.#status}`);
    }
  }

  /** Shows or replaces the status line. The caller fits it to `columns`. Interactive only. */
  setStatus(text: string): void {
    if (!this.interactive) throw new Error("no status line without a terminal");
    this.#status = text;
    // Text first, then erase: a line that is erased first flickers.
    this.#stream.write(`${RETURN}${text}${ERASE_TO_END}`);
  }

  /** Takes the status line away. */
  clearStatus(): void {
    if (this.#status === "") return;
    this.#status = "";
    this.#stream.write(`${RETURN}${ERASE_TO_END}`);
  }
}

/** The terminal of this process. */
export const stderrTerminal = new Terminal(process.stderr);
