/**
 * A program under test: its output captured, its life limited, its end waited for.
 *
 *     await using dest = spawn(postcopyCommand("dest", "--guest", "stress", "--json"));
 *     const [, port] = await dest.stderr.waitForLine(/listening on port (\d+)/);
 *     …
 *     expect(await dest.finish()).toMatchObject({ exitCode: 0 });
 *
 * At the end of the block a program that still runs is killed; a test that wants its exit code
 * calls `finish`.
 */
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";

import { DeadlineError, withDeadline } from "./deadline.ts";
import { TextLog } from "./text-log.ts";

/** How long a program may live where the test names no other limit. */
export const DEFAULT_LIFE_MS = 60_000;

/** The root of the checkout. */
export const PROJECT_ROOT = join(import.meta.dir, "..", "..");

export interface SpawnOptions {
  /** Working directory; the root of the checkout if absent. */
  cwd?: string;
  /** Added to the environment of the tests; a variable that is undefined is taken out. */
  environment?: Record<string, string | undefined>;
  /** The program is killed when it lives longer, and `finish` fails. */
  lifeMs?: number;
}

/** How a program ended: `exitCode` is null when `signal` killed it, and the other way round. */
export interface Finished {
  exitCode: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

export class RunningProgram implements AsyncDisposable {
  readonly command: readonly string[];
  readonly stdout: TextLog;
  readonly stderr: TextLog;
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #lifeMs: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  #expired = false;

  constructor(command: readonly string[], options: SpawnOptions = {}) {
    this.command = command;
    this.#lifeMs = options.lifeMs ?? DEFAULT_LIFE_MS;
    this.#child = Bun.spawn([...command], {
      cwd: options.cwd ?? PROJECT_ROOT,
      env: { ...process.env, ...options.environment },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.stdout = new TextLog(`stdout of ${command.join(" ")}`, this.#child.stdout);
    this.stderr = new TextLog(`stderr of ${command.join(" ")}`, this.#child.stderr);
    this.#timer = setTimeout(() => {
      this.#expired = true;
      this.kill();
    }, this.#lifeMs);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Writes `line` and a newline to the program's stdin. */
  writeLine(line: string): void {
    void this.#child.stdin.write(`${line}\n`);
    void this.#child.stdin.flush();
  }

  /** Ends the program's stdin. */
  endInput(): void {
    void this.#child.stdin.end();
  }

  /** SIGKILL, as the end of a test must not depend on the good will of what it tests. */
  kill(signal: NodeJS.Signals = "SIGKILL"): void {
    this.#child.kill(signal);
  }

  /** Every line of stdout as the JSON object it must be (the `--json` output), as it arrives. */
  async *events(): AsyncGenerator<Record<string, unknown>> {
    for await (const line of this.stdout.lines()) {
      const event: unknown = JSON.parse(line);
      if (typeof event !== "object" || event === null || Array.isArray(event)) {
        throw new Error(`not a JSON object on stdout: ${line}`);
      }
      yield { ...event };
    }
  }

  /** Waits for the end of the program and of its output. Fails if its life limit ended it. */
  async finish(): Promise<Finished> {
    await this.#child.exited;
    clearTimeout(this.#timer);
    const ended = Promise.all([this.stdout.ended, this.stderr.ended]);
    await withDeadline(ended, "the end of the output of a program that has exited");
    if (this.#expired) {
      throw new DeadlineError(
        `${this.command.join(" ")} did not end within ${this.#lifeMs} ms\n` +
          `${this.stdout.tail}\n${this.stderr.tail}`,
      );
    }
    return {
      exitCode: this.#child.exitCode,
      signal: this.#child.signalCode === null ? null : String(this.#child.signalCode),
      stdout: this.stdout.text,
      stderr: this.stderr.text,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    if (this.running) this.kill();
    await this.#child.exited;
  }
}

/** Starts `command` (program and arguments). */
export function spawn(command: readonly string[], options: SpawnOptions = {}): RunningProgram {
  return new RunningProgram(command, options);
}

/** Runs `command` to its end; any exit code is a result, not an error. */
export async function run(
  command: readonly string[],
  options: SpawnOptions & { input?: string } = {},
): Promise<Finished> {
  await using program = spawn(command, options);
  if (options.input !== undefined) program.writeLine(options.input);
  program.endInput();
  return await program.finish();
}

/** The journal of what tests send: that of the host is none of their business. */
const JOURNAL = join(PROJECT_ROOT, ".cache", "test-journal");
/** No test lasts longer; what killed programs left in it before means nothing to anybody. */
const JOURNAL_LIFE_MS = 600_000;

function clearJournal(): void {
  for (const name of existsSync(JOURNAL) ? readdirSync(JOURNAL) : []) {
    const path = join(JOURNAL, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
    if (age > JOURNAL_LIFE_MS) rmSync(path, { force: true });
  }
}
clearJournal();

/** Words of a command with the tests' own journal, where it keeps one and names no other. */
export function withJournal(words: readonly string[]): string[] {
  const [command = "", ...rest] = words;
  const keepsOne = command === "source" || rest.includes("--onward");
  const named = rest.includes("--journal") || rest.includes("--no-journal");
  return keepsOne && !named ? [command, "--journal", JOURNAL, ...rest] : [...words];
}

/** The executable that `npm test` has made of the sources as they are (scripts/test.ts), if it runs. */
export const BUILT_EXECUTABLE = process.env["POSTCOPY_EXECUTABLE"];

/** postcopy from its sources, by the Bun that runs the tests. */
export const FROM_SOURCES = [process.execPath, join(PROJECT_ROOT, "src", "cli.ts")] as const;

/** The command line of postcopy: the executable in `npm test`, the sources in a plain `bun test`. */
export function postcopyCommand(...words: string[]): string[] {
  const program = BUILT_EXECUTABLE === undefined ? FROM_SOURCES : [BUILT_EXECUTABLE];
  return [...program, ...withJournal(words)];
}
