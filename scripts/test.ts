/**
 * Runs the tests and says in its last line, in the form that CI summaries know, how they went:
 *
 *     bun scripts/test.ts [arguments of `bun test`]
 *     …
 *     210 passed, 0 failed, 3 skipped
 *
 * The counts come from the JUnit report, which stays in .cache/junit.xml. What failed is said once more
 * before them, with its reasons: in the end of a long log, which is all that some CIs keep.
 *
 * The programs that tests start are the executable, which is made first: that is what operators run,
 * and a process of it begins with a quarter of the work that it takes from the sources.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { buildExecutable } from "./build.ts";

const PROJECT_ROOT = join(import.meta.dir, "..");

/** Four times Bun's default, which bunfig.toml cannot change: a loaded CI machine is slow. */
const TEST_LIMIT_MS = 20_000;

/**
 * Test files that run at the same time, each in one of as many processes: they wait for QEMUs and
 * programs of ours as much as they compute, so that one alone leaves two cores half idle. What is
 * of the whole machine (the pool of huge pages) has a lock. Modules stay loaded from file to file,
 * as they do in a plain `bun test`.
 */
const FILES_AT_ONCE = ["--parallel=2", "--no-isolate"];

/** Lines that are kept of one failure, the last ones, and failures that are kept. */
const LINES_A_FAILURE = 120;
const FAILURES_MAX = 10;

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * The counts of one run from its JUnit report (undefined if there is none) and its exit code. A
 * file that cannot be loaded, and a run that crashed, are not in the report: such a run has at
 * least one failure, so that the last line never contradicts the exit code.
 */
export function countTests(report: string | undefined, exitCode: number): Counts {
  const totals = /<testsuites\b[^>]*>/.exec(report ?? "")?.[0] ?? "";
  const attribute = (name: string): number =>
    Number(new RegExp(`\\b${name}="(\\d+)"`).exec(totals)?.[1] ?? 0);
  const skipped = attribute("skipped");
  const reported = attribute("failures");
  const passed = Math.max(0, attribute("tests") - skipped - reported);
  return { passed, failed: exitCode === 0 ? reported : Math.max(1, reported), skipped };
}

export function describeCounts({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/**
 * Gathers what `bun test` prints of tests that fail: the lines before the verdict, and those up to the
 * next one, as reasons may come behind it.
 */
export class FailureLog {
  readonly failures: string[] = [];
  #lines: string[] = [];
  #failed = false;

  take(line: string): void {
    const plain = Bun.stripANSI(line);
    const verdict = /^\((pass|fail|skip|todo)\) /.exec(plain)?.[1];
    if (verdict === "fail") this.#lines.push(line);
    if (verdict !== undefined) this.#keep(verdict === "fail");
    // Names of files, and empty lines, say nothing.
    else if (!/^(\S+\.test\.ts:)?$/.test(plain)) this.#lines.push(line);
  }

  /** A test has ended: what was said since the one before is kept if either of them failed. */
  #keep(failed: boolean): void {
    // The summary repeats the names of what failed, without reasons.
    const says = this.#lines.length > (failed ? 1 : 0);
    if ((failed || this.#failed) && says && this.failures.length < FAILURES_MAX) {
      this.failures.push(this.#lines.slice(-LINES_A_FAILURE).join("\n"));
    }
    this.#failed = failed;
    this.#lines = [];
  }
}

/** Hands on to standard error what a child prints, and lets `log` see each line of it. */
async function handOn(from: ReadableStream<Uint8Array>, log: FailureLog): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of from) {
    process.stderr.write(part);
    const lines = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) log.take(line);
  }
}

async function main(): Promise<void> {
  const reportPath = join(PROJECT_ROOT, ".cache", "junit.xml");
  mkdirSync(join(PROJECT_ROOT, ".cache"), { recursive: true });
  rmSync(reportPath, { force: true });
  const executable = join(PROJECT_ROOT, ".cache", "test", "postcopy");
  await buildExecutable({ projectRoot: PROJECT_ROOT, outfile: executable });
  const reporter = ["--reporter=junit", `--reporter-outfile=${reportPath}`];
  const settings = [`--timeout=${TEST_LIMIT_MS}`, ...FILES_AT_ONCE, ...reporter];
  const child = Bun.spawn([process.execPath, "test", ...settings, ...process.argv.slice(2)], {
    cwd: PROJECT_ROOT,
    // What is said of tests goes to standard error.
    stdio: ["inherit", "inherit", "pipe"],
    env: {
      ...process.env,
      ...(process.stderr.isTTY ? { FORCE_COLOR: "1" } : {}),
      POSTCOPY_EXECUTABLE: executable,
    },
  });
  const log = new FailureLog();
  // A Ctrl-C reaches the child as well, which ends the run; this waits for it to have done so.
  process.on("SIGINT", () => undefined);
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  await handOn(child.stderr, log);
  const exitCode = await child.exited;
  if (log.failures.length > 0) console.log(`\nOnce more:\n\n${log.failures.join("\n\n")}\n`);

  const report = Bun.file(reportPath);
  const counts = countTests((await report.exists()) ? await report.text() : undefined, exitCode);
  console.log(describeCounts(counts));
  process.exitCode = counts.failed === 0 ? 0 : 1;
}

if (import.meta.main) await main();
