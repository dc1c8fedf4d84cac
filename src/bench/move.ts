/**
 * One move from one process of this very program to another, over loopback, for benchmarks: it is
 * the program as an operator runs it, from its sources or as the compiled executable.
 */
import { join } from "node:path";
import type { DestReport, SourceReport } from "../report/report.ts";

/** Longest time that one move may take. */
const MOVE_LIMIT_MS = 120_000;

/** Both reports of a move. */
export interface Moved {
  source: SourceReport;
  dest: DestReport;
}

/** The words that start this program: the executable is all of it, Bun is told which file. */
export function ownCommand(): string[] {
  const compiled = import.meta.url.includes("/$bunfs/");
  const cli = join(import.meta.dir, "..", "cli.ts");
  return compiled ? [process.execPath] : [process.execPath, cli];
}

/** A role of this program at work; what it says with --json. */
class Role implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #events: AsyncGenerator<Record<string, unknown>>;

  constructor(words: readonly string[]) {
    this.#child = Bun.spawn([...ownCommand(), ...words, "--json"], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: MOVE_LIMIT_MS,
    });
    this.#events = readEvents(this.#child.stdout);
  }

  /** The next event of a name; what comes before it is passed over. */
  async event(name: string): Promise<Record<string, unknown>> {
    for (;;) {
      const { done, value } = await this.#events.next();
      if (done === true) throw new Error(`no event "${name}": ${await this.#child.stderr.text()}`);
      if (value["event"] === name) return value;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

async function* readEvents(
  stdout: ReadableStream<Uint8Array>,
): AsyncGenerator<Record<string, unknown>> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stdout) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as Record<string, unknown>;
  }
}

/**
 * Moves `guest` by `source`, with these flags, to a `dest` of its own.
 * @throws Error with the program's own words when it fails, or when the audit finds a wrong page.
 */
export async function move(guest: string, sourceFlags: readonly string[]): Promise<Moved> {
  await using dest = new Role(["dest", "--guest", "stress", "--listen", "tcp:127.0.0.1:0"]);
  const { peer } = await dest.event("listening");
  const words = ["--guest", guest, "--to", String(peer), "--no-journal", ...sourceFlags];
  await using source = new Role(["source", ...words]);
  const sent = (await source.event("report"))["report"] as SourceReport;
  const arrived = (await dest.event("report"))["report"] as DestReport;
  if (sent.outcome !== "completed" || arrived.audit?.pagesWrong !== 0) {
    throw new Error(`the move went wrong: ${JSON.stringify({ sent, arrived })}`);
  }
  return { source: sent, dest: arrived };
}
