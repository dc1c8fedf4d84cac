/** `postcopy analyze --json` as a script meets it, its one event checked against the schema. */
import { eventsSchema } from "../../src/report/events.ts";
import type { Event } from "../../src/report/events.ts";
import type { Analysis, SnapshotAnalysis, StreamAnalysis } from "../../src/report/analysis.ts";
import { postcopyCommand, run } from "./spawn.ts";

/** How it ended. */
export interface AnalysisEnd {
  exitCode: number | null;
  stderr: string;
  analysis: Analysis | undefined;
  error: Extract<Event, { event: "error" }> | undefined;
}

/** Runs it to its end, with these words behind `analyze --json`. */
export async function runAnalyze(...words: string[]): Promise<AnalysisEnd> {
  const { exitCode, stdout, stderr } = await run(postcopyCommand("analyze", "--json", ...words));
  const lines = stdout.split("\n").filter((line) => line !== "");
  const events = lines.map((line) => eventsSchema.parse(JSON.parse(line)));
  const analysis = events.find((event) => event.event === "analysis")?.analysis;
  return { exitCode, stderr, analysis, error: events.find((event) => event.event === "error") };
}

/** The analysis of a stream; whether it is in order is for the test to say. */
export async function analyseStream(...words: string[]): Promise<StreamAnalysis> {
  const { analysis, stderr } = await runAnalyze(...words);
  if (analysis?.kind === "stream") return analysis;
  throw new Error(`there is no analysis of a stream\n${stderr}`);
}

/** The analysis of a snapshot. */
export async function analyseSnapshot(...words: string[]): Promise<SnapshotAnalysis> {
  const { analysis, stderr } = await runAnalyze(...words);
  if (analysis?.kind === "snapshot") return analysis;
  throw new Error(`there is no analysis of a snapshot\n${stderr}`);
}
