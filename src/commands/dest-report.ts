/** The report of a guest that was received by this program. */
import { WORD } from "../dest/shared.ts";
import { diskBytes } from "../guests/snapshot/directory.ts";
import { totalBytes } from "../ram/block.ts";
import type { Movement } from "../report/movement.ts";
import type { Observations } from "../report/observations.ts";
import { REPORT_VERSION } from "../report/report.ts";
import type { DestReport } from "../report/report.ts";
import { destCounts } from "../report/summary.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { favourOf } from "../sync/favour.ts";
import type { DestCrew } from "../threads/dest-crew.ts";
import { errorChain } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import type { ArrivalNotes } from "./arrival-notes.ts";
import type { AuditFigures } from "./audit-guest.ts";
import { peakResidentBytes } from "./process-memory.ts";
import type { DestJob, DestMoment } from "./dest-job.ts";
import { ratePerSecond } from "./timeline.ts";
import type { Timeline } from "./timeline.ts";

/** What a report is made of. */
export interface FinishedArrival {
  job: Pick<DestJob, "guestText" | "interrupts">;
  crew: DestCrew;
  notes: ArrivalNotes;
  completedIn: DestReport["completedIn"];
  audit: AuditFigures | null;
  failure: Error | undefined;
}

/** What the page of a report shows beside it; `runs`: the guest runs in this process. */
export function destObservations(
  timeline: Timeline<DestMoment>,
  movement: Movement | undefined,
  crew: DestCrew,
  runs: boolean,
): Observations {
  const moments = timeline.named({
    device: "the device state came",
    ...(runs ? { running: "the guest ran here" } : {}),
    drained: "all of it was here",
  });
  const zeroNs = timeline.at("connected") ?? timeline.startNs;
  return { zeroNs, moments, movement, latencies: crew.faultTimes };
}

function timesOf(timeline: Timeline<DestMoment>): DestReport["times"] {
  return {
    setup: timeline.ms("connected", "precopy"),
    precopy: timeline.ms("precopy", "device"),
    // A guest that is kept after a completion in precopy runs nowhere.
    device: timeline.ms("device", "running") ?? timeline.ms("device", "drained"),
    postcopy: timeline.ms("running", "drained"),
    toRunning: timeline.ms("connected", "running"),
    toDrained: timeline.ms("connected", "drained"),
    total: timeline.elapsedMs,
  };
}

/** Pages come from the package on, also while the guest is still being loaded. */
function postcopyRate(timeline: Timeline<DestMoment>, pages: number): number | null {
  if (pages === 0) return null;
  return ratePerSecond(pages * TARGET_PAGE_SIZE, timeline.ms("device", "drained"));
}

/** The report of a migration that has ended, well or not. */
export function destReport(arrived: FinishedArrival): DestReport {
  const { job, crew, notes, failure } = arrived;
  const { timeline, blocks, kept } = notes;
  const counts = destCounts(crew.counts);
  const { control } = crew.shared;
  const latency = crew.faultTimes;
  const code = failure !== undefined && "code" in failure ? String(failure.code) : "INTERNAL";
  const pushed = counts.pages.pushedNormal + counts.pages.urgentNormal;
  return {
    role: "dest",
    version: REPORT_VERSION,
    program: VERSION,
    startedAt: timeline.startedAt,
    guest: job.guestText,
    peer: notes.source,
    outcome: job.interrupts.outcome(failure),
    error: failure === undefined ? null : { code, message: errorChain(failure) },
    downtime: notes.downtime,
    times: timesOf(timeline),
    rates: { precopy: null, postcopy: postcopyRate(timeline, pushed) },
    memory: { guestBytes: totalBytes(blocks), peakRssBytes: peakResidentBytes() },
    qemu: null,
    urgentChannel: Atomics.load(control, WORD.urgentChosen) === 1,
    pushChannels: crew.pushChannels,
    favour: favourOf(control, WORD.favour),
    phase: counts.phase,
    completedIn: arrived.completedIn,
    pages: counts.pages,
    places: counts.places,
    faults: { ...counts.faults, latencyNs: latency.count === 0 ? null : latency.summary() },
    bytes: counts.bytes,
    multifd: crew.multifd,
    audit: arrived.audit,
    snapshot: kept === undefined ? null : { ...kept, bytes: diskBytes(kept.directory) },
  };
}
