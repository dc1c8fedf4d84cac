/**
 * Runs the tests and says in its last line, in the form that CI summaries know, how they went:
 *
 *     bun scripts/test.ts [arguments of `bun test`]
 *     …
 *     210 passed, 0 failed, 3 skipped
 *
 * The counts come from the JUnit report, which stays in .cache/junit.xml.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

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

async function main(): Promise<void> {
  const reportPath = join(PROJECT_ROOT, ".cache", "junit.xml");
  mkdirSync(join(PROJECT_ROOT, ".cache"), { recursive: true });
  rmSync(reportPath, { force: true });
  const reporter = ["--reporter=junit", `--reporter-outfile=${reportPath}`];
  const settings = [`--timeout=${TEST_LIMIT_MS}`, ...FILES_AT_ONCE, ...reporter];
  const child = Bun.spawn([process.execPath, "test", ...settings, ...process.argv.slice(2)], {
    cwd: PROJECT_ROOT,
    stdio: ["inherit", "inherit", "inherit"],
  });
  // A Ctrl-C reaches the child as well, which ends the run; this waits for it to have done so.
  process.on("SIGINT", () => undefined);
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  const exitCode = await child.exited;

  const report = Bun.file(reportPath);
  const counts = countTests((await report.exists()) ? await report.text() : undefined, exitCode);
  console.log(describeCounts(counts));
  process.exitCode = counts.failed === 0 ? 0 : 1;
}

if (import.meta.main) await main();
