/** The report of a guest that was sent by this program, and why that failed. */
import { sourceBlocks } from "../guests/registry.ts";
import { totalBytes } from "../ram/block.ts";
import type { Movement } from "../report/movement.ts";
import type { Observations } from "../report/observations.ts";
import type { SourceReport } from "../report/report.ts";
import { REPORT_VERSION } from "../report/report.ts";
import { sourceCounts } from "../report/summary.ts";
import { TIME, WORD } from "../source/shared.ts";
import { favourOf } from "../sync/favour.ts";
import type { SourceCrew } from "../threads/source-crew.ts";
import type { ThreadError } from "../threads/thread.ts";
import type { TlsBridge } from "../threads/tls-bridge.ts";
import { errorChain, errorRecord } from "../util/errors.ts";
import type { ErrorRecord } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import { AFTERMATH } from "./broken-link.ts";
import { peakResidentBytes } from "./process-memory.ts";
import type { PrecopyRecord } from "./precopy-record.ts";
import type { SourceEnd, SourceJob } from "./source-job.ts";
import { deepestCause, withTlsFailure } from "./tls-failure.ts";
import { ratePerSecond } from "./timeline.ts";
import type { Timeline } from "./timeline.ts";

export type SourceMoment =
  "connected" | "precopy" | "device" | "postcopy" | "running" | "useful" | "drained" | "stopped";

/** What a report is made of. */
export interface FinishedSend {
  job: Pick<SourceJob, "guest" | "guestText" | "peerText" | "interrupts" | "workingSet">;
  crew: SourceCrew;
  timeline: Timeline<SourceMoment>;
  precopy: Pick<PrecopyRecord, "rounds" | "switchover">;
  /** How often the link broke and was made anew. */
  recoveries: number;
  failure: ThreadError | undefined;
  place: SourceEnd["place"];
}

/** The code of what broke the link: the kernel tells only one thread. */
export function brokenBy({ returnPathError }: SourceCrew, error: ErrorRecord): string {
  const codes = [deepestCause(error).code];
  if (returnPathError !== undefined) codes.push(errorRecord(returnPathError).code);
  return codes.find((code) => !AFTERMATH.has(code)) ?? "PEER_CLOSED";
}

/**
 * The return path often knows better why the link ended than the thread that only writes, and TLS,
 * where there is a bridge, better than both.
 */
export async function failureOf(
  crew: SourceCrew,
  record: ErrorRecord,
  bridge: TlsBridge | undefined,
): Promise<ThreadError> {
  const last = deepestCause(record);
  if (crew.returnPathError !== undefined && AFTERMATH.has(last.code)) {
    const why = errorRecord(crew.returnPathError);
    // It did not go away by itself: in place of that stands what made this end hang up.
    if (!AFTERMATH.has(why.code)) Object.assign(last, why);
  }
  return await withTlsFailure(record, bridge);
}

/** What the page of a report shows beside it. */
export function sourceObservations(
  timeline: Timeline<SourceMoment>,
  movement: Movement | undefined,
  { shared }: SourceCrew,
): Observations {
  const moments = timeline.named({
    stopped: "the guest stopped here",
    running: "it ran at the destination",
    useful: "its recorded working set was there",
  });
  const latencies = shared.requestTimes;
  return { zeroNs: timeline.startNs, moments, movement, latencies };
}

/** The report of a migration that has ended, well or not. */
export function sourceReport(sent: FinishedSend): SourceReport {
  const { crew, timeline, failure } = sent;
  const { guest, guestText, peerText, interrupts } = sent.job;
  const counts = sourceCounts(crew.counts);
  const firstPage = timeline.at("precopy") === undefined ? "stopped" : "precopy";
  const times = {
    setup: timeline.ms("start", firstPage),
    precopy: timeline.ms("precopy", "stopped"),
    device: timeline.ms("stopped", "postcopy"),
    postcopy: timeline.ms("postcopy", "drained"),
    toRunning: timeline.ms("start", "running"),
    toDrained: timeline.ms("start", "drained"),
    total: timeline.elapsedMs,
  };
  // A guest that was kept stood still before, for however long.
  const downtime = guest.kind === "stress" ? timeline.ms("stopped", "running") : null;
  const requests = crew.shared.requestTimes;
  const pages = sent.job.workingSet?.length ?? 0;
  const inPlaceNs = crew.shared.times[TIME.workingSet] ?? 0;
  if (inPlaceNs > 0) timeline.note("useful", inPlaceNs);
  return {
    role: "source",
    version: REPORT_VERSION,
    program: VERSION,
    startedAt: timeline.startedAt,
    guest: guestText,
    peer: peerText,
    outcome: interrupts.outcome(failure, sent.place === "source"),
    error: failure === undefined ? null : { code: failure.code, message: errorChain(failure) },
    downtime: downtime === null ? null : { ms: downtime, method: "acknowledged" },
    times,
    rates: {
      precopy: ratePerSecond(counts.bytes.precopy, times.precopy),
      postcopy: ratePerSecond(counts.bytes.postcopy + counts.bytes.requested, times.postcopy),
    },
    memory: { guestBytes: totalBytes(sourceBlocks(guest)), peakRssBytes: peakResidentBytes() },
    qemu: null,
    urgentChannel: crew.urgentChannel,
    pushChannels: crew.pushChannels,
    favour: favourOf(crew.shared.control, WORD.favour),
    recoveries: sent.recoveries,
    switchover: sent.precopy.switchover,
    rounds: sent.precopy.rounds,
    ...counts,
    workingSet: pages === 0 ? null : { pages, toInPlaceMs: timeline.ms("start", "useful") },
    requestServiceNs: requests.count === 0 ? null : requests.summary(),
  };
}
