/**
 * What is seen while a guest moves: on a terminal one line that is rewritten, elsewhere a plain
 * line now and then, with --json an event. `estimate` makes figures of two samples, `renderLine`
 * makes text of figures, and only `startProgress` has a timer.
 */
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { formatDuration } from "../util/duration.ts";
import type { Paint, Terminal } from "../util/terminal.ts";
import { formatBytes, formatCount, formatRate } from "../util/units.ts";
import type { EventSink } from "./sink.ts";

/** Redraws of the line: eight a second look live, and cost a small host nothing. */
const REDRAW_INTERVAL_MS = 125;
/** Plain lines go to logs and pipes, where a line a second is plenty. */
const PLAIN_INTERVAL_MS = 1000;
const EVENT_INTERVAL_MS = 500;
/** A plain line that says nothing new comes this often, as a sign of life. */
const REPEAT_INTERVAL_MS = 60_000;
/** Weight of the newest interval in the smoothed rates is 1 - e^(-interval / this). */
const RATE_SMOOTHING_MS = 1500;
/** An estimate beyond this says nothing: the rate is about zero. */
const ETA_MS_MAX = 24 * 3_600_000;
/** Width of the bar in columns. */
const BAR_COLUMNS = 12;

/** One look at the counters of a role. */
export interface ProgressSample {
  role: "source" | "dest";
  phase: string;
  /** Precopy round, from 1; null outside precopy and where it is not known. */
  round: number | null;
  elapsedMs: number;
  /** Bytes on the wire so far. */
  bytes: number;
  /** Pages moved so far; a page that moved twice counts twice. */
  donePages: number;
  /** Pages that were there before this process began, which goes on with what another has left. */
  arrivedPages: number;
  /** Pages that have to move as far as is known now; null while it is not known. */
  remainingPages: number | null;
  /** Pages that the guest wrote and that must be sent again; null when nobody tracks them. */
  dirtyPages: number | null;
  /** Remote faults (destination) or page requests (source). */
  faults: number;
}

/** A sample and what follows from it and the ones before. */
export interface ProgressFigures extends ProgressSample {
  /** Smoothed. */
  bytesPerSecond: number;
  pagesPerSecond: number;
  /** 0 to 100; never less than before, as pages dirtied again are work, not regress. Or unknown. */
  percent: number | null;
  /** Estimated time until nothing remains; null when nothing can be said. */
  etaMs: number | null;
}

const FINAL_PHASES: ReadonlySet<string> = new Set(["completed", "drained"]);
/** Phases in which there is no link, or none yet that pages come over: nothing moves. */
const STANDING_PHASES: ReadonlySet<string> = new Set(["paused", "recover"]);

/** Figures of a sample; `before` are those of the sample before it, or undefined at first. */
export function estimate(
  sample: ProgressSample,
  before: ProgressFigures | undefined,
): ProgressFigures {
  const rates = smoothedRates(sample, before);
  const percent = percentOf(sample);
  const least = before?.percent ?? null;
  const etaMs = (1000 * (sample.remainingPages ?? NaN)) / rates.pagesPerSecond;
  return {
    ...sample,
    ...rates,
    percent: percent === null || least === null ? (percent ?? least) : Math.max(percent, least),
    etaMs: sample.donePages > 0 && etaMs <= ETA_MS_MAX ? etaMs : null,
  };
}

function percentOf(sample: ProgressSample): number | null {
  if (FINAL_PHASES.has(sample.phase)) return 100;
  if (sample.remainingPages === null) return null;
  const there = sample.arrivedPages + sample.donePages;
  const all = there + sample.remainingPages;
  // 99 until the end: the guest may dirty more, and the last page is not the last message.
  return all === 0 ? null : Math.min(99, Math.floor((100 * there) / all));
}

function smoothedRates(
  sample: ProgressSample,
  before: ProgressFigures | undefined,
): Pick<ProgressFigures, "bytesPerSecond" | "pagesPerSecond"> {
  if (STANDING_PHASES.has(sample.phase)) return { bytesPerSecond: 0, pagesPerSecond: 0 };
  const since = before ?? { elapsedMs: 0, bytes: 0, donePages: 0 };
  const intervalMs = sample.elapsedMs - since.elapsedMs;
  if (intervalMs <= 0) {
    const { bytesPerSecond = 0, pagesPerSecond = 0 } = before ?? {};
    return { bytesPerSecond, pagesPerSecond };
  }
  // A QEMU that is driven counts anew when it gives a migration up.
  const bytes = (1000 * Math.max(0, sample.bytes - since.bytes)) / intervalMs;
  const pages = (1000 * Math.max(0, sample.donePages - since.donePages)) / intervalMs;
  if (before === undefined || before.bytes === 0 || STANDING_PHASES.has(before.phase)) {
    return { bytesPerSecond: bytes, pagesPerSecond: pages };
  }
  const weight = 1 - Math.exp(-intervalMs / RATE_SMOOTHING_MS);
  return {
    bytesPerSecond: before.bytesPerSecond + weight * (bytes - before.bytesPerSecond),
    pagesPerSecond: before.pagesPerSecond + weight * (pages - before.pagesPerSecond),
  };
}

const BAR_EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"] as const;

/** A bar of eighths of a column: `percent` of `columns`. */
export function progressBar(percent: number, columns: number): string {
  const eighths = Math.round((percent / 100) * columns * 8);
  const full = "█".repeat(eighths >> 3);
  return (full + (BAR_EIGHTHS[eighths & 7] ?? "")).padEnd(columns);
}

function phaseText(figures: ProgressFigures): string {
  return figures.round === null ? figures.phase : `${figures.phase} round ${figures.round}`;
}

/** Parts of the line in their order; the last ones go first when the terminal is narrow. */
function lineParts(figures: ProgressFigures): string[] {
  const rate = STANDING_PHASES.has(figures.phase)
    ? ""
    : ` at ${formatRate(figures.bytesPerSecond)}`;
  const parts = [`${formatBytes(figures.bytes)}${rate}`];
  if (figures.remainingPages !== null) {
    const remaining = formatBytes(figures.remainingPages * TARGET_PAGE_SIZE);
    const eta =
      figures.etaMs === null || figures.remainingPages === 0 ? "" : etaText(figures.etaMs);
    parts.push(`${remaining} left${eta === "" ? "" : ` (~${eta})`}`);
  }
  const asked = figures.role === "source" ? "requests" : "faults";
  parts.push(`${asked} ${formatCount(figures.faults)}`);
  if (figures.dirtyPages !== null) parts.push(`dirty ${formatCount(figures.dirtyPages)} pages`);
  return parts;
}

/** An estimate is not worth three digits. */
function etaText(etaMs: number): string {
  return etaMs < 1000 ? "1 s" : formatDuration(Math.round(etaMs / 1000) * 1000);
}

/** The line that is rewritten: never wider than `columns`, coloured by `paint`. */
export function renderLine(figures: ProgressFigures, columns: number, paint: Paint): string {
  let line = paint.bold(phaseText(figures));
  if (figures.percent !== null) {
    const bar = paint.cyan(progressBar(figures.percent, BAR_COLUMNS));
    line += ` ${bar}${String(figures.percent).padStart(3)} %`;
  }
  for (const part of lineParts(figures)) {
    const longer = `${line}  ${part}`;
    if (Bun.stringWidth(longer) > columns) break;
    line = longer;
  }
  return Bun.sliceAnsi(line, 0, columns);
}

/** The same for logs: one whole line without colour or bar. */
export function renderPlain(figures: ProgressFigures): string {
  const percent = figures.percent === null ? [] : [`${figures.percent} %`];
  return `${phaseText(figures)}: ${[...percent, ...lineParts(figures)].join(", ")}`;
}

/** How progress is shown. */
export type ProgressMode = "line" | "plain" | "events" | "none";

export interface ProgressOptions {
  mode: ProgressMode;
  sample: () => ProgressSample;
  terminal: Terminal;
  events: EventSink;
}

/** A running display. */
export interface Progress {
  /** Shows the last state and ends the display; a second call does nothing. */
  stop(): void;
}

/** Shows progress until it is stopped. Its timer does not keep the process alive. */
export function startProgress(options: ProgressOptions): Progress {
  const { mode, sample, terminal, events } = options;
  if (mode === "none") return { stop: () => {} };
  let figures: ProgressFigures | undefined;
  let last = "";
  let lastMs = -Infinity;
  // A log is not filled with a line that says again what the last one said.
  const showPlain = (line: string): void => {
    if (line === last && performance.now() - lastMs < REPEAT_INTERVAL_MS) return;
    last = line;
    lastMs = performance.now();
    terminal.writeLines(line);
  };
  const show = (): void => {
    figures = estimate(sample(), figures);
    if (mode === "events") events.emit({ event: "progress", ...figures });
    else if (mode === "plain") showPlain(renderPlain(figures));
    // The last column stays free: a terminal that has written there may wrap.
    else terminal.setStatus(renderLine(figures, terminal.columns - 1, terminal.paint));
  };
  const intervals = {
    line: REDRAW_INTERVAL_MS,
    plain: PLAIN_INTERVAL_MS,
    events: EVENT_INTERVAL_MS,
  };
  const timer = setInterval(show, intervals[mode]);
  timer.unref();
  if (mode === "line") show();
  let stopped = false;
  return {
    stop: () => {
      if (stopped) return;
      stopped = true;
      clearInterval(timer);
      if (mode === "line") terminal.clearStatus();
      else show();
    },
  };
}
