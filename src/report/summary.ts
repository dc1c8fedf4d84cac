/**
 * What counters say, in the words of a report and of the progress line. The sums over the writing
 * threads are made here and nowhere else.
 */
import { DEST, DEST_PHASES, SOURCE, SOURCE_PHASES } from "./counters.ts";
import type { DestCounts, DestPhase, SourceCounts, SourcePhase } from "./counters.ts";
import type { ProgressSample } from "./progress.ts";
import type { DestReport, SourceReport } from "./report.ts";

/** The source's phase. */
export function sourcePhase(counters: SourceCounts): SourcePhase {
  return SOURCE_PHASES[counters.get(SOURCE.phase)] ?? "setup";
}

/** The destination's phase. */
export function destPhase(counters: DestCounts): DestPhase {
  return DEST_PHASES[counters.get(DEST.phase)] ?? "waiting";
}

/** From 0 to 1, also where pages of a broken link were asked for twice; null of nothing. */
function shareOf(part: number, whole: number): number | null {
  return whole === 0 ? null : Math.min(1, part / whole);
}

/** The counts of a SourceReport. */
export function sourceCounts(
  counters: SourceCounts,
): Pick<SourceReport, "phase" | "pages" | "requests" | "bytes"> {
  const bytes = {
    precopy: counters.get(SOURCE.bytesPrecopy),
    package: counters.get(SOURCE.bytesPackage),
    postcopy: counters.get(SOURCE.bytesPostcopy),
    requested: counters.get(SOURCE.bytesRequested),
  };
  return {
    phase: sourcePhase(counters),
    pages: {
      total: counters.get(SOURCE.totalPages),
      precopyNormal: counters.get(SOURCE.pagesNormalPrecopy),
      precopyZero: counters.get(SOURCE.pagesZeroPrecopy),
      owed: counters.get(SOURCE.owedPages),
      pushedNormal: counters.get(SOURCE.pagesPushed),
      pushedZero: counters.get(SOURCE.pagesPushedZero),
      pushedCompressed: counters.get(SOURCE.pagesPacked),
      requestedNormal: counters.get(SOURCE.pagesRequested),
      requestedZero: counters.get(SOURCE.pagesRequestedZero),
      repeated: counters.get(SOURCE.pagesRepeated),
    },
    requests: {
      received: counters.get(SOURCE.requestsReceived),
      served: counters.get(SOURCE.requestsServed),
      duplicate: counters.get(SOURCE.requestsDuplicate),
      remoteShare: shareOf(
        counters.get(SOURCE.pagesRequested) + counters.get(SOURCE.pagesRequestedZero),
        counters.get(SOURCE.owedPages),
      ),
    },
    bytes: { ...bytes, total: bytes.precopy + bytes.package + bytes.postcopy + bytes.requested },
  };
}

/** The counts of a DestReport; the latencies of its faults are added by the caller. */
export function destCounts(counters: DestCounts): Pick<
  DestReport,
  "phase" | "pages" | "places" | "bytes"
> & {
  faults: Omit<DestReport["faults"], "latencyNs">;
} {
  const main = counters.get(DEST.bytesReceived);
  const urgent = counters.get(DEST.bytesUrgent);
  const multifd = counters.get(DEST.bytesMultifd);
  return {
    phase: destPhase(counters),
    pages: {
      total: counters.get(DEST.totalPages),
      precopyNormal: counters.get(DEST.pagesPrecopy) + counters.get(DEST.pagesMultifd),
      precopyZero: counters.get(DEST.pagesPrecopyZero) + counters.get(DEST.pagesMultifdZero),
      missing: counters.get(DEST.missingPages),
      pushedNormal: counters.get(DEST.pagesPushed),
      pushedZero: counters.get(DEST.pagesPushedZero),
      urgentNormal: counters.get(DEST.pagesUrgent),
      urgentZero: counters.get(DEST.pagesUrgentZero),
      removed: counters.get(DEST.removedPages),
      dropped: counters.get(DEST.pagesDropped) + counters.get(DEST.urgentDropped),
    },
    places: {
      exists: counters.get(DEST.placeExists) + counters.get(DEST.urgentExists),
      retries: counters.get(DEST.placeRetries) + counters.get(DEST.urgentRetries),
    },
    faults: {
      events: counters.get(DEST.faults),
      remote: counters.get(DEST.faultsRemote),
      local: counters.get(DEST.faultsLocal),
      remoteShare: shareOf(counters.get(DEST.pagesAwaited), counters.get(DEST.missingPages)),
    },
    bytes: { main, multifd, urgent, total: main + multifd + urgent },
  };
}

/** Phases in which what is left is what is owed, also while there is no link. */
const IN_POSTCOPY: ReadonlySet<string> = new Set(["postcopy", "paused", "recover", "completed"]);

/**
 * The source's progress; `elapsedMs` is the time since the start. One that `resumes` what another process
 * has left knows what is owed, and thereby what had arrived, once the destination has said it.
 */
export function sourceProgress(
  counters: SourceCounts,
  elapsedMs: number,
  resumes = false,
): ProgressSample {
  const { phase, pages, requests, bytes } = sourceCounts(counters);
  const precopied = pages.precopyNormal + pages.precopyZero;
  const sent = pages.pushedNormal + pages.pushedZero + pages.requestedNormal + pages.requestedZero;
  const inPostcopy = IN_POSTCOPY.has(phase);
  const dirtyPages = counters.get(SOURCE.dirtyPages);
  const isUnknown = resumes && pages.owed === 0;
  const left = inPostcopy ? Math.max(0, pages.owed - sent) : dirtyPages;
  return {
    role: "source",
    phase,
    round: phase === "precopy" ? counters.get(SOURCE.round) : null,
    elapsedMs,
    bytes: bytes.total,
    donePages: precopied + sent,
    arrivedPages: resumes && !isUnknown ? Math.max(0, pages.total - pages.owed) : 0,
    remainingPages: isUnknown ? null : left,
    dirtyPages: phase === "precopy" || phase === "device" ? dirtyPages : null,
    faults: requests.received,
  };
}

/** The share of the guest's memory that is at the destination and current, as the source knows it. */
export function sourceResidency(counters: SourceCounts): number | undefined {
  const { phase, pages } = sourceCounts(counters);
  if (pages.total === 0 || phase === "setup") return undefined;
  const { remainingPages } = sourceProgress(counters, 0);
  // Nothing is owed before the switchover; then it is, and what was dirty is a part of that.
  const sent = pages.pushedNormal + pages.pushedZero + pages.requestedNormal + pages.requestedZero;
  const missing = pages.owed > 0 ? pages.owed - sent : (remainingPages ?? 0);
  return Math.min(1, Math.max(0, 1 - missing / pages.total));
}

/** Whether it has been counted by a phase what lacks at the destination. */
function knowsMissing(phase: DestPhase): boolean {
  return IN_POSTCOPY.has(phase) || phase === "drained";
}

function placedPages(pages: DestReport["pages"]): number {
  return pages.pushedNormal + pages.pushedZero + pages.urgentNormal + pages.urgentZero;
}

/** Pages that the destination lacks still. */
function missingNow(pages: DestReport["pages"]): number {
  return Math.max(0, pages.missing - placedPages(pages) - pages.removed);
}

/**
 * The share that is here, as the destination knows it: not before LISTEN, as long as pages may come
 * once more.
 */
export function destResidency(counters: DestCounts): number | undefined {
  const { phase, pages } = destCounts(counters);
  if (pages.total === 0) return undefined;
  if (pages.missing === 0 && !knowsMissing(phase)) return undefined;
  return 1 - missingNow(pages) / pages.total;
}

/**
 * The destination's progress; `elapsedMs` is the time since the connection. Before LISTEN it cannot
 * know how often the source will send a page again, so it does not say what remains. `resumes`: what
 * another process received is here.
 */
export function destProgress(
  counters: DestCounts,
  elapsedMs: number,
  resumes = false,
): ProgressSample {
  const { phase, pages, faults, bytes } = destCounts(counters);
  const placed = placedPages(pages);
  return {
    role: "dest",
    phase,
    round: null,
    elapsedMs,
    bytes: bytes.total,
    donePages: pages.precopyNormal + pages.precopyZero + placed,
    arrivedPages: resumes ? Math.max(0, pages.total - pages.missing) : 0,
    remainingPages: knowsMissing(phase) ? missingNow(pages) : null,
    dirtyPages: null,
    faults: faults.remote,
  };
}
