/** One run of postcopy with --json, to its end: its events, its report, and how it ended. */
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { postcopyCommand, spawn } from "./spawn.ts";
import type { Finished, RunningProgram } from "./spawn.ts";

export interface PostcopyRun extends Finished {
  events: Record<string, unknown>[];
  /** The report of the role; undefined if the command gave none. */
  report: SourceReport | DestReport | undefined;
}

/** Collects what a running postcopy says; `see` is called with each event as it comes. */
export async function collectRun(
  program: RunningProgram,
  see: (event: Record<string, unknown>) => void | Promise<void> = () => undefined,
): Promise<PostcopyRun> {
  const events: Record<string, unknown>[] = [];
  let report: PostcopyRun["report"];
  for await (const event of program.events()) {
    events.push(event);
    if (event["event"] === "report") report = event["report"] as SourceReport | DestReport;
    await see(event);
  }
  return { ...(await program.finish()), events, report };
}

/** Runs `postcopy ... --json`; `environment` is added to that of the tests. */
export async function runPostcopy(
  words: readonly string[],
  see?: (event: Record<string, unknown>) => void | Promise<void>,
  environment: Record<string, string> = {},
): Promise<PostcopyRun> {
  await using program = spawn(postcopyCommand(...words, "--json"), { environment });
  return await collectRun(program, see);
}

/** The report of a source that ended well; fails with what it said otherwise. */
export function sourceReportOf(run: PostcopyRun): SourceReport {
  if (run.exitCode === 0 && run.report?.role === "source") return run.report;
  throw new Error(`source ended with ${run.exitCode}:\n${run.stderr}`);
}

/** The report of a destination that ended well; fails with what it said otherwise. */
export function destReportOf(run: PostcopyRun): DestReport {
  if (run.exitCode === 0 && run.report?.role === "dest") return run.report;
  throw new Error(`dest ended with ${run.exitCode}:\n${run.stderr}`);
}
