/**
 * The report as people read it at the end of a command: short, aligned, every figure with its unit.
 * Pure: a report goes in, text comes out. The JSON of --report has all that is left out here.
 */
import type { FavourKind } from "../sync/favour.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { formatDuration, formatNanoseconds } from "../util/duration.ts";
import type { Paint } from "../util/terminal.ts";
import { formatBytes, formatCount, formatRate } from "../util/units.ts";
import { alignColumns, labelled } from "./columns.ts";
import type { LatencySummary } from "./histogram.ts";
import { progressBar } from "./progress.ts";
import type { QemuFigures } from "./qemu-figures.ts";
import type { DestReport, Downtime, Report, Round, SourceReport, Switchover } from "./report.ts";

/** Width of the longest bar of the latency histogram. */
const LATENCY_BAR_COLUMNS = 24;

const DOWNTIME_METHOD: Readonly<Record<Downtime["method"], string>> = {
  "one-clock": "both ends on one clock",
  "two-clocks": "by the clocks of two machines",
  acknowledged: "until the destination's answer, so at most",
  guest: "the longest gap that the guest saw",
};

function pagesText(pages: number): string {
  return `${formatCount(pages)} ${pages === 1 ? "page" : "pages"}`;
}

/** Pages with content and pages of zeros: "1,234 pages and 56 zero". */
function kindsText(normal: number, zero: number): string {
  return zero === 0 ? pagesText(normal) : `${pagesText(normal)} and ${formatCount(zero)} zero`;
}

function roundsTable(rounds: readonly Round[], paint: Paint): string[] {
  if (rounds.length === 0) return [];
  const head = ["round", "pages", "zero", "sent", "took", "dirty after"];
  const rows = rounds.map((round) => [
    String(round.round),
    formatCount(round.pagesNormal),
    formatCount(round.pagesZero),
    formatBytes(round.bytes),
    formatDuration(round.durationMs),
    formatCount(round.dirtyPagesAfter),
  ]);
  const [first = "", ...others] = alignColumns([head, ...rows]);
  return ["", paint.dim(first), ...others, ""];
}

/** A bar for each power of two of µs, from the first to the last that has any. */
function bucketBars(buckets: readonly number[], paint: Paint): string[] {
  const most = Math.max(...buckets);
  const first = buckets.findIndex((count) => count > 0);
  const last = buckets.findLastIndex((count) => count > 0);
  if (first < 0) return [];
  const bars = buckets.slice(first, last + 1).map((count, offset) => {
    const from = formatDuration(2 ** (first + offset) / 1000).padStart(8);
    // A bucket that has any shows at least a sliver: the rare slow fault is the interesting one.
    const percent = count === 0 ? 0 : Math.max((100 * count) / most, 100 / LATENCY_BAR_COLUMNS / 8);
    const bar = progressBar(percent, LATENCY_BAR_COLUMNS).trimEnd();
    const tail = count === 0 ? "" : `${paint.cyan(bar)} ${formatCount(count)}`;
    return labelled("", `${from} ${tail}`, paint).trimEnd();
  });
  return bars;
}

function percentiles(latency: LatencySummary): string {
  return [
    `p50 ${formatNanoseconds(latency.p50)}`,
    `p90 ${formatNanoseconds(latency.p90)}`,
    `p99 ${formatNanoseconds(latency.p99)}`,
    `max ${formatNanoseconds(latency.max)}`,
  ].join("  ");
}

function downtimeLine(report: Report, paint: Paint): string[] {
  if (report.downtime === null) return [];
  const how = DOWNTIME_METHOD[report.downtime.method];
  const text = `${paint.bold(formatDuration(report.downtime.ms))} ${paint.dim(`(${how})`)}`;
  return [labelled("downtime", text, paint)];
}

/** Time to running and to drained, and the whole. */
function timesLine(report: Report, paint: Paint): string {
  const { toRunning, toDrained, total } = report.times;
  const useful = report.role === "source" ? (report.workingSet?.toInPlaceMs ?? null) : null;
  const kept = report.role === "dest" && report.snapshot !== null;
  const parts = [];
  if (toRunning !== null && !kept)
    parts.push(`running after ${paint.bold(formatDuration(toRunning))}`);
  if (useful !== null) parts.push(`working set there after ${formatDuration(useful)}`);
  if (toDrained !== null) parts.push(`drained after ${formatDuration(toDrained)}`);
  parts.push(`${formatDuration(total)} in all`);
  return labelled("time", parts.join(", "), paint);
}

/** Nothing where the bytes pass elsewhere: a QEMU that receives does not count them. */
function trafficLine(report: Report, paint: Paint): string[] {
  if (report.bytes.total === 0) return [];
  const parts = [];
  if (report.rates.precopy !== null) parts.push(`precopy at ${formatRate(report.rates.precopy)}`);
  if (report.rates.postcopy !== null) {
    parts.push(`postcopy at ${formatRate(report.rates.postcopy)}`);
  }
  const rates = parts.length === 0 ? "" : `: ${parts.join(", ")}`;
  return [labelled("traffic", `${formatBytes(report.bytes.total)}${rates}`, paint)];
}

/** What the QEMU at this end says of itself. */
function qemuLines({ qemu }: Report, paint: Paint): string[] {
  if (qemu === null) return [];
  const parts = [qemu.version];
  if (qemu.startMs !== null) parts.push(`started in ${formatDuration(qemu.startMs)}`);
  if (qemu.stoodStillMs !== null) {
    parts.push(`the guest stood still for ${formatDuration(qemu.stoodStillMs)}`);
  }
  if (qemu.blocktimeMs !== null) {
    parts.push(`all vCPUs blocked for ${formatDuration(qemu.blocktimeMs)}`);
  }
  return [labelled("QEMU", parts.join(", "), paint), ...qemuLatencyLines(qemu, paint)];
}

/** How long each fault took, where QEMU tells (10.1 and later). */
function qemuLatencyLines(qemu: QemuFigures, paint: Paint): string[] {
  const buckets = qemu.latencyBuckets ?? [];
  const faults = buckets.reduce((sum, count) => sum + count, 0);
  if (qemu.latencyMeanNs === null || faults === 0) return [];
  const mean = `${formatNanoseconds(qemu.latencyMeanNs)} in the mean`;
  const text = `${mean}, in ${formatCount(faults)} faults as QEMU saw them`;
  return [labelled("waited", text, paint), ...bucketBars(buckets, paint)];
}

function memoryLine(report: Report, paint: Paint): string {
  const { peakRssBytes, guestBytes } = report.memory;
  const guest = guestBytes === 0 ? "" : `, for a guest of ${formatBytes(guestBytes)}`;
  return labelled("memory", `${formatBytes(peakRssBytes)} at most${guest}`, paint);
}

/** What was done, in one sentence. */
export function headline(report: Report): string {
  const { guest, peer, outcome } = report;
  if (outcome !== "completed") return `Migration ${outcome} in phase ${report.phase}`;
  if (report.role === "source" && report.qemu !== null && report.qemu.startMs !== null) {
    return `Restored ${guest} in ${peer}`;
  }
  if (report.role === "source") return `Moved ${guest} to ${peer}`;
  const verb = report.snapshot === null ? "Received" : "Kept";
  return `${verb} ${guest} from ${peer}`;
}

function switchoverLine(switchover: Switchover | null, paint: Paint): string[] {
  if (switchover === null) return [];
  const owed = formatBytes(switchover.dirtyPages * TARGET_PAGE_SIZE);
  const how = switchover.kind === "postcopy" ? "by postcopy" : "while it stood";
  const text = `${switchover.reason}; ${owed} left to move ${how}`;
  return [labelled("switchover", text, paint)];
}

/** What was sent in postcopy. A QEMU does not count apart which pages it was asked for. */
function postcopyLines(
  { pages, requests, qemu, urgentChannel }: SourceReport,
  paint: Paint,
): string[] {
  const packed = pages.pushedCompressed;
  const compressed = packed === 0 ? "" : `, ${formatCount(packed)} of them compressed`;
  const pushed = kindsText(pages.pushedNormal, pages.pushedZero) + compressed;
  const asked = `${formatCount(requests.received)} requests`;
  if (qemu !== null && qemu.startMs === null) {
    return [labelled("postcopy", `${pushed} (${asked})`, paint)];
  }
  const requested = kindsText(pages.requestedNormal, pages.requestedZero);
  const duplicate =
    requests.duplicate === 0 ? "" : `, ${formatCount(requests.duplicate)} of them already sent`;
  const channel = urgentChannel ? " on their own channel" : "";
  const share = shareText(requests.remoteShare, "");
  return [
    labelled("pushed", pushed, paint),
    labelled("requested", `${requested}${share}${channel} (${asked}${duplicate})`, paint),
  ];
}

function sourceLines(report: SourceReport, paint: Paint): string[] {
  const { requestServiceNs } = report;
  const lines = [
    ...roundsTable(report.rounds, paint),
    ...switchoverLine(report.switchover, paint),
    ...downtimeLine(report, paint),
  ];
  if (report.switchover?.kind === "postcopy") lines.push(...postcopyLines(report, paint));
  if (requestServiceNs !== null && requestServiceNs.count > 0) {
    lines.push(labelled("answered in", percentiles(requestServiceNs), paint));
    lines.push(...priorityLine(report, paint));
  }
  return lines;
}

/** By how the thread is favoured. */
const PRIORITY: Readonly<Record<FavourKind, string>> = {
  "real-time": "real time",
  nice: "favoured",
  usual: "none, as this host allows none",
};

/** How the thread is scheduled that whoever waits for a page waits for. */
function priorityLine({ favour }: Report, paint: Paint): string[] {
  return favour === null ? [] : [labelled("priority", PRIORITY[favour], paint)];
}

function destLines(report: DestReport, paint: Paint): string[] {
  const { pages, faults, audit, snapshot } = report;
  const lines = downtimeLine(report, paint);
  const kinds = (label: string, normal: number, zero: number, where: string): void => {
    if (normal + zero > 0) lines.push(labelled(label, `${kindsText(normal, zero)}${where}`, paint));
  };
  if (report.completedIn === "precopy") {
    lines.push(labelled("completed", "in precopy, without a switch to postcopy", paint));
  }
  kinds("precopy", pages.precopyNormal, pages.precopyZero, multifdText(report.multifd));
  kinds("pushed", pages.pushedNormal, pages.pushedZero, "");
  kinds("urgent", pages.urgentNormal, pages.urgentZero, " on their own channel");
  if (pages.missing > 0) {
    const local = faults.local === 0 ? "" : `, ${formatCount(faults.local)} on pages just come`;
    const share = shareText(faults.remoteShare, " of what lacked");
    lines.push(labelled("faults", `${formatCount(faults.remote)} remote${share}${local}`, paint));
  }
  if (faults.latencyNs !== null && faults.latencyNs.count > 0) {
    lines.push(labelled("waited", percentiles(faults.latencyNs), paint));
    lines.push(...bucketBars(faults.latencyNs.buckets, paint));
    lines.push(...priorityLine(report, paint));
  }
  if (snapshot !== null) {
    const size = `${formatBytes(snapshot.bytes)} in ${pagesText(snapshot.pagesStored)}`;
    lines.push(labelled("snapshot", `${snapshot.directory}: ${size}`, paint));
  }
  if (audit !== null) lines.push(labelled("checked", auditText(audit, paint), paint));
  return lines;
}

/** How much of what had to move the guest had to wait for; nothing where that is nothing. */
function shareText(share: number | null, of: string): string {
  if (share === null || share === 0) return "";
  return ` (${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %${of})`;
}

function multifdText(multifd: DestReport["multifd"]): string {
  if (multifd === null) return "";
  const { channels, compression } = multifd;
  return ` on ${channels} multifd channels${compression === "none" ? "" : ` (${compression})`}`;
}

function auditText(audit: NonNullable<DestReport["audit"]>, paint: Paint): string {
  const wrong = `${formatCount(audit.pagesWrong)} wrong`;
  const verdict = audit.pagesWrong === 0 ? paint.green(wrong) : paint.red(paint.bold(wrong));
  return `${pagesText(audit.pagesChecked)}, ${verdict}`;
}

/** The report as lines of text, at most 100 columns unless names are longer; no newline at end. */
export function renderReport(report: Report, paint: Paint): string {
  const lines = report.role === "source" ? sourceLines(report, paint) : destLines(report, paint);
  const done = headline(report);
  return [
    report.outcome === "completed" ? paint.green(done) : paint.red(done),
    ...lines,
    ...qemuLines(report, paint),
    ...trafficLine(report, paint),
    timesLine(report, paint),
    memoryLine(report, paint),
  ].join("\n");
}
