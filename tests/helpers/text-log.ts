/**
 * The output of a process as it arrives: kept whole, searchable by line, and able to wake whoever
 * waits for a line that is not there yet.
 */
import { DEFAULT_WAIT_MS, DeadlineError, withDeadline } from "./deadline.ts";

/** What is kept of one stream. A test program that prints more than this is broken. */
const LIMIT_CHARACTERS = 64 * 1024 * 1024;
/** How much of the end an error message shows. */
const TAIL_CHARACTERS = 4_000;

export class TextLog {
  readonly name: string;
  /** Resolves when the stream has ended. */
  readonly ended: Promise<void>;
  #text = "";
  #open = true;
  #changed = Promise.withResolvers<void>();

  /** Reads `stream` to its end; `name` ("stdout of …") stands in error messages. */
  constructor(name: string, stream: ReadableStream<Uint8Array>) {
    this.name = name;
    this.ended = this.#read(stream);
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const bytes of stream) {
        this.#text += decoder.decode(bytes, { stream: true });
        if (this.#text.length > LIMIT_CHARACTERS) throw new Error(`${this.name} never ends`);
        this.#announce();
      }
    } finally {
      this.#open = false;
      this.#announce();
    }
  }

  #announce(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /** All that has arrived. */
  get text(): string {
    return this.#text;
  }

  /** The last part of what has arrived, for an error message. */
  get tail(): string {
    const tail = this.#text.slice(-TAIL_CHARACTERS);
    return `--- ${this.name} ---\n${tail === "" ? "(nothing)" : tail}`;
  }

  /**
   * The complete lines from `from` (an offset in `text`) on as they arrive, without their newlines,
   * until the stream ends. A last line that no newline ends is given too.
   */
  async *lines(from = 0): AsyncGenerator<string> {
    let at = from;
    for (;;) {
      const newline = this.#text.indexOf("\n", at);
      if (newline !== -1) {
        yield this.#text.slice(at, newline);
        at = newline + 1;
      } else if (this.#open) {
        await this.#changed.promise;
      } else {
        if (at < this.#text.length) yield this.#text.slice(at);
        return;
      }
    }
  }

  /**
   * The first match of `pattern` in a line at or behind offset `from`. Fails when the stream ends
   * or `limitMs` passes without one, and then shows the end of the output.
   */
  async waitForLine(
    pattern: RegExp,
    options: { from?: number; limitMs?: number } = {},
  ): Promise<RegExpExecArray> {
    const search = async (): Promise<RegExpExecArray> => {
      for await (const line of this.lines(options.from)) {
        const match = pattern.exec(line);
        if (match !== null) return match;
      }
      throw new Error(`no line matches ${String(pattern)}, and the stream has ended\n${this.tail}`);
    };
    const limitMs = options.limitMs ?? DEFAULT_WAIT_MS;
    try {
      return await withDeadline(search(), `a line that matches ${String(pattern)}`, limitMs);
    } catch (error) {
      if (error instanceof DeadlineError) throw new DeadlineError(`${error.message}\n${this.tail}`);
      throw error;
    }
  }
}
