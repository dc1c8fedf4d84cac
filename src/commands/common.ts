/**
 * The flags that every command has, and where its output goes: text for people on standard error,
 * and with --json one event a line on standard output, never anything else.
 */
import { accessSync, constants, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import * as z from "zod";
import { startProgress } from "../report/progress.ts";
import type { Progress, ProgressMode, ProgressSample } from "../report/progress.ts";
import type { Observations } from "../report/observations.ts";
import { renderReport } from "../report/render.ts";
import type { Report } from "../report/report.ts";
import { createEventWriter, noEvents } from "../report/sink.ts";
import type { EventSink } from "../report/sink.ts";
import { UsageError } from "../util/errors.ts";
import { log, setVerbosity } from "../util/log.ts";
import { stderrTerminal } from "../util/terminal.ts";
import { quoted } from "../util/units.ts";
import { optionalFlag, switchFlag } from "./strict.ts";

/** Flags of every command. */
export const COMMON_FLAGS = {
  json: switchFlag("One JSON event a line on standard output"),
  quiet: switchFlag("Only warnings and errors", "q"),
  verbose: switchFlag("Also say why; errors with their stack", "v"),
} as const;

/** The flag of commands that end with a report. */
export const REPORT_FLAG = {
  report: optionalFlag(z.string(), {
    valueHint: "FILE",
    description: "Write the report there: as a page with plots for .html, else as JSON",
  }),
} as const;

/** Values of COMMON_FLAGS. */
export interface CommonOptions {
  json: boolean;
  quiet: boolean;
  verbose: boolean;
}

/** Refuses common flags that contradict each other; for a command's `check`. */
export function checkCommon(options: CommonOptions): void {
  if (!options.quiet || !options.verbose) return;
  throw new UsageError("CONTRADICTION", "Flags --quiet and --verbose contradict each other", {
    hint: "leave one of them out",
  });
}

/** What a command says, and how. */
export interface Output {
  events: EventSink;
  /** Says that something is not as it should be: to people, and as an event. */
  warn(code: string, message: string): void;
  /** Shows progress in the way that fits where the output goes. */
  startProgress(sample: () => ProgressSample): Progress;
  /** Whether the file of --report is a page, which shows more than the report says. */
  readonly page: boolean;
  /** The report to people, as an event, and into the file of --report. */
  finish(report: Report, observed: Observations): void;
}

function progressMode(options: CommonOptions): ProgressMode {
  if (options.json) return "events";
  if (options.quiet) return "none";
  return stderrTerminal.interactive ? "line" : "plain";
}

/** Sets the logger up and gives the command its output. Throws when --report cannot be written. */
export async function openOutput(
  options: CommonOptions & { report?: string | undefined },
): Promise<Output> {
  if (options.verbose) setVerbosity("verbose");
  else if (options.quiet) setVerbosity("quiet");
  const file = options.report;
  if (file !== undefined) checkReportFile(file);
  const events = options.json ? createEventWriter(process.stdout) : noEvents;
  const warn = (code: string, message: string): void => {
    log.warn(message);
    events.emit({ event: "warning", code, message });
  };
  const page = file !== undefined && isPage(file);
  const reportText = page ? await loadPage() : jsonText;
  return {
    page,
    events,
    warn,
    startProgress: (sample) =>
      startProgress({ mode: progressMode(options), sample, terminal: stderrTerminal, events }),
    finish: (report, observed) => {
      if (!options.quiet) {
        stderrTerminal.writeLines(renderReport(report, stderrTerminal.paint));
      }
      events.emit({ event: "report", report });
      if (file === undefined) return;
      writeReportFile(file, () => reportText(report, observed), warn);
    },
  };
}

/** The text of a report's file. */
type ReportText = (report: Report, observed: Observations) => string;

/** Whether a report goes into a page, by the name of its file. */
export function isPage(file: string): boolean {
  return /\.html?$/i.test(file);
}

/** Only whoever wants a page waits for the drawings to be loaded. */
async function loadPage(): Promise<ReportText> {
  return (await import("../report/page/report-page.ts")).reportPage;
}

function jsonText(report: Report): string {
  return `${JSON.stringify(report, null, 2)}\n`;
}

/** A report that cannot be written is found out before the guest moves, not after. */
function checkReportFile(file: string): void {
  const directory = dirname(file);
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new UsageError("BAD_VALUE", `Flag --report: ${quoted(directory)} cannot be written to`, {
      cause,
      hint: "name a file in a directory that exists and is yours",
    });
  }
}

/**
 * Writes the report whole or not at all. That it fails (a full disk) is only a warning: the guest
 * has moved, and an exit code that says otherwise would be a lie.
 */
export function writeReportFile(
  file: string,
  text: () => string,
  warn: (code: string, message: string) => void,
): void {
  const unfinished = `${file}.${process.pid}.tmp`;
  try {
    writeFileSync(unfinished, text());
    renameSync(unfinished, file);
  } catch (thrown) {
    rmSync(unfinished, { force: true });
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    warn("REPORT_NOT_WRITTEN", `The report could not be written to ${quoted(file)}: ${why}`);
  }
}
