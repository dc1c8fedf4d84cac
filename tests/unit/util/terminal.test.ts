import { describe, expect, test } from "bun:test";
import { createPaint, harmless, Terminal, wantsColours } from "../../../src/util/terminal.ts";

const ERASE_TO_END = "\u001b[K";
const CONTROL = new RegExp(`(\\r|${RegExp.escape(ERASE_TO_END)})`);

/** A stream that keeps what is written, and what a screen of one line would show. */
class RecordingStream {
  readonly isTTY: boolean;
  columns = 40;
  text = "";

  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }

  write(text: string): void {
    this.text += text;
  }

  /** The lines as a terminal shows them. */
  get screen(): string[] {
    return this.text.split("\n").map((line) => {
      let shown = "";
      let column = 0;
      for (const part of line.split(CONTROL)) {
        if (part === "\r") column = 0;
        else if (part === ERASE_TO_END) shown = shown.slice(0, column);
        else {
          shown = shown.slice(0, column) + part + shown.slice(column + part.length);
          column += part.length;
        }
      }
      return shown;
    });
  }
}

describe("on a terminal", () => {
  test("lines are written above the status line, which stays below", () => {
    const stream = new RecordingStream(true);
    const terminal = new Terminal(stream, {});
    terminal.setStatus("10 % of a long line");
    terminal.writeLines("a warning");
    expect(stream.screen).toEqual(["a warning", "10 % of a long line"]);
    terminal.setStatus("20 %");
    expect(stream.screen).toEqual(["a warning", "20 %"]);
    terminal.clearStatus();
    terminal.writeLines("the end\n");
    expect(stream.screen).toEqual(["a warning", "the end", ""]);
  });

  test("the width is asked each time", () => {
    const stream = new RecordingStream(true);
    const terminal = new Terminal(stream, {});
    stream.columns = 100;
    expect(terminal.columns).toBe(100);
  });

  test("without a status line nothing but text is written", () => {
    const stream = new RecordingStream(true);
    const terminal = new Terminal(stream, {});
    terminal.clearStatus();
    terminal.writeLines("text");
    expect(stream.text).toBe("text\n");
  });
});

test("what a terminal would obey is shown instead, but for colours of our own", () => {
  const stream = new RecordingStream(false);
  const title = "\u001b]0;owned\u0007";
  new Terminal(stream, {}).writeLines(`block "${title}\u009b2J\r" of 1 MiB\n\tnext`);
  const shown = 'block "\\x1b]0;owned\\x07\\x9b2J\\x0d" of 1 MiB\n\tnext\n';
  expect(stream.text).toBe(shown);
  const red = createPaint(true).red("x");
  expect(harmless(red)).toBe(red);
  expect(harmless("\u001b[2Jé")).toBe("\\x1b[2Jé");
});

test("elsewhere there is no status line", () => {
  const terminal = new Terminal(new RecordingStream(false), {});
  expect(terminal.interactive).toBeFalse();
  expect(() => terminal.setStatus("x")).toThrow("no status line");
  expect(new Terminal(new RecordingStream(true), { TERM: "dumb" }).interactive).toBeFalse();
});

test("colours are for terminals whose owner does not refuse them", () => {
  const tty = new RecordingStream(true);
  expect(wantsColours(tty, {})).toBeTrue();
  expect(wantsColours(tty, { NO_COLOR: "1" })).toBeFalse();
  expect(wantsColours(tty, { NO_COLOR: "" })).toBeTrue();
  expect(wantsColours(tty, { TERM: "dumb" })).toBeFalse();
  expect(wantsColours(new RecordingStream(false), {})).toBeFalse();
  expect(createPaint(true).red("x")).toBe("\u001b[31mx\u001b[39m");
  expect(createPaint(false).red("x")).toBe("x");
});
