/**
 * What counters say, in the words of a report and of the progress line. The sums over the writing
 * threads are made here and nowhere else.
 */
import { DEST, DEST_PHASES, SOURCE, SOURCE_PHASES } from "./counters.ts";
import type { DestCounters, DestPhase, SourceCounters, SourcePhase } from "./counters.ts";
import type { ProgressSample } from "./progress.ts";
import type { DestReport, SourceReport } from "./report.ts";

/** The source's phase. */
export function sourcePhase(counters: SourceCounters): SourcePhase {
  return SOURCE_PHASES[counters.get(SOURCE.phase)] ?? "setup";
}

/** The destination's phase. */
export function destPhase(counters: DestCounters): DestPhase {
  return DEST_PHASES[counters.get(DEST.phase)] ?? "waiting";
}

/** The counts of a SourceReport. */
export function sourceCounts(
  counters: SourceCounters,
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
      requestedNormal: counters.get(SOURCE.pagesRequested),
      requestedZero: counters.get(SOURCE.pagesRequestedZero),
      repeated: counters.get(SOURCE.pagesRepeated),
    },
    requests: {
      received: counters.get(SOURCE.requestsReceived),
      served: counters.get(SOURCE.requestsServed),
      duplicate: counters.get(SOURCE.requestsDuplicate),
    },
    bytes: { ...bytes, total: bytes.precopy + bytes.package + bytes.postcopy + bytes.requested },
  };
}

/** The counts of a DestReport; the latencies of its faults are added by the caller. */
export function destCounts(counters: DestCounters): Pick<
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
    },
    bytes: { main, multifd, urgent, total: main + multifd + urgent },
  };
}

/** Phases in which what is left is what is owed, also while there is no link. */
const IN_POSTCOPY: ReadonlySet<string> = new Set(["postcopy", "paused", "recover", "completed"]);

/** The source's progress; `elapsedMs` is the time since the start. */
export function sourceProgress(counters: SourceCounters, elapsedMs: number): ProgressSample {
  const { phase, pages, requests, bytes } = sourceCounts(counters);
  const precopied = pages.precopyNormal + pages.precopyZero;
  const sent = pages.pushedNormal + pages.pushedZero + pages.requestedNormal + pages.requestedZero;
  const inPostcopy = IN_POSTCOPY.has(phase);
  const dirtyPages = counters.get(SOURCE.dirtyPages);
  return {
    role: "source",
    phase,
    round: phase === "precopy" ? counters.get(SOURCE.round) : null,
    elapsedMs,
    bytes: bytes.total,
    donePages: precopied + sent,
    remainingPages: inPostcopy ? Math.max(0, pages.owed - sent) : dirtyPages,
    dirtyPages: phase === "precopy" || phase === "device" ? dirtyPages : null,
    faults: requests.received,
  };
}

/**
 * The destination's progress; `elapsedMs` is the time since the connection. Before LISTEN it cannot
 * know how often the source will send a page again, so it does not say what remains.
 */
export function destProgress(counters: DestCounters, elapsedMs: number): ProgressSample {
  const { phase, pages, faults, bytes } = destCounts(counters);
  const placed = pages.pushedNormal + pages.pushedZero + pages.urgentNormal + pages.urgentZero;
  const afterListen = IN_POSTCOPY.has(phase) || phase === "drained";
  return {
    role: "dest",
    phase,
    round: null,
    elapsedMs,
    bytes: bytes.total,
    donePages: pages.precopyNormal + pages.precopyZero + placed,
    remainingPages: afterListen ? Math.max(0, pages.missing - placed - pages.removed) : null,
    dirtyPages: null,
    faults: faults.remote,
  };
}
