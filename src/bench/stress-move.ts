/** A stress guest that two processes of this program move, as an operator would have them do it. */
import { join } from "node:path";
import type { DestReport, SourceReport } from "../report/report.ts";

/** How this program is started: the executable, or Bun with the sources. */
function ownCommand(): string[] {
  const compiled = import.meta.dir.startsWith("/$bunfs");
  return compiled ? [process.execPath] : [process.execPath, join(import.meta.dir, "..", "cli.ts")];
}

/** What both ends reported. */
export interface StressMove {
  source: SourceReport;
  dest: DestReport;
}

interface Event {
  event: string;
  peer?: string;
  report?: unknown;
}

/** One of the two processes; ended with the block it is in, however that ends. */
class End implements AsyncDisposable {
  readonly #program: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #events: AsyncGenerator<Event>;
  readonly #said: Promise<string>;
  readonly #seen: (event: string) => void;

  constructor(words: readonly string[], seen: (event: string) => void) {
    this.#seen = seen;
    this.#program = Bun.spawn([...words, "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#events = readEvents(this.#program.stdout);
    this.#said = new Response(this.#program.stderr).text();
  }

  /** The next event of a name. @throws Error with what the program said, if none comes. */
  async next(name: string): Promise<Event> {
    for (;;) {
      const { done, value } = await this.#events.next();
      if (done === true) throw new Error(`no event "${name}" came:\n${await this.#said}`);
      this.#seen(value.event);
      if (value.event === name) return value;
    }
  }

  get pid(): number {
    return this.#program.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#program.kill("SIGKILL");
    await this.#program.exited;
  }
}

async function* readEvents(stdout: ReadableStream<Uint8Array>): AsyncGenerator<Event> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of stdout) {
    text += decoder.decode(bytes, { stream: true });
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as Event;
  }
}

export interface StressMoveOptions {
  /** How this program is started. */
  program?: readonly string[];
  /** Told of each event of either end, with the processes of both. */
  seen?: (event: string, source: number, dest: number) => void;
}

/**
 * Moves a guest (`stress:…`) over loopback TCP; `flags` are the source's. @throws Error when a page did not arrive as it was.
 */
export async function moveStress(
  guest: string,
  flags: readonly string[],
  { program = ownCommand(), seen }: StressMoveOptions = {},
): Promise<StressMove> {
  const ends = { source: 0, dest: 0 };
  const tell = (event: string): void => seen?.(event, ends.source, ends.dest);
  const listen = ["--guest", "stress", "--listen", "tcp:127.0.0.1:0"];
  await using arriving = new End([...program, "dest", ...listen], tell);
  ends.dest = arriving.pid;
  const { peer = "" } = await arriving.next("listening");
  const words = ["--guest", guest, "--to", peer, "--no-journal", ...flags];
  await using sending = new End([...program, "source", ...words], tell);
  ends.source = sending.pid;
  const [sent, arrived] = await Promise.all([sending.next("report"), arriving.next("report")]);
  const source = sent.report as SourceReport;
  const dest = arrived.report as DestReport;
  if (dest.audit?.pagesWrong !== 0) throw new Error(`pages are wrong: ${JSON.stringify(dest)}`);
  return { source, dest };
}
