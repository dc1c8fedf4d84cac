/** The progress and the report of a QEMU that is driven, put together from its own figures. */
import { guestRequests } from "../guests/qemu/keep.ts";
import { qemuFigures } from "../guests/qemu/migration.ts";
import type { QemuSourceDriver } from "../guests/qemu/source-driver.ts";
import type { MigrateReply } from "../qmp/messages.ts";
import type { SourcePhase } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import type { Movement } from "../report/movement.ts";
import type { Observations } from "../report/observations.ts";
import type { ProgressSample } from "../report/progress.ts";
import type { SourceReport } from "../report/report.ts";
import { REPORT_VERSION } from "../report/report.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { errorChain } from "../util/errors.ts";
import { VERSION } from "../util/version.ts";
import type { Interrupts } from "./interrupts.ts";
import type { PrecopyRecord } from "./precopy-record.ts";
import { peakResidentBytes } from "./process-memory.ts";
import { ratePerSecond } from "./timeline.ts";
import type { Timeline } from "./timeline.ts";

export type DriveMoment = "connected" | "precopy" | "stopped" | "postcopy" | "drained" | "resumed";

/** What a report is made of. */
export interface FinishedDrive {
  driver: QemuSourceDriver;
  timeline: Timeline<DriveMoment>;
  options: { keep: boolean; preempt: boolean };
  /** Of the monitor. */
  socket: string;
  peer: string;
  /** Of the QEMU. */
  version: string;
  phase: SourcePhase;
  precopy: Pick<PrecopyRecord, "rounds" | "switchover">;
  failure: Error | undefined;
  interrupts: Interrupts;
}

/** Pages by kind, as far as a QEMU counts them; which ones they are it does not say. */
export function readMoved({ reply, atSwitch }: QemuSourceDriver, counts: Uint32Array): void {
  const sent = ({ ram }: MigrateReply): number => (ram?.normal ?? 0) + (ram?.duplicate ?? 0);
  counts[KIND.precopy] = sent(atSwitch ?? reply);
  counts[KIND.push] = sent(reply) - sent(atSwitch ?? reply);
}

/** The share of the guest's memory that is at the destination, as far as QEMU knows. */
export function residentShare({ ram }: MigrateReply): number | undefined {
  return ram === undefined || ram.total === 0 ? undefined : 1 - ram.remaining / ram.total;
}

/** How far it is, as far as QEMU knows. */
export function driveSample(
  { reply, round }: QemuSourceDriver,
  phase: SourcePhase,
  elapsedMs: number,
): ProgressSample {
  const { ram } = reply;
  const dirtyPages = Math.ceil((ram?.remaining ?? 0) / TARGET_PAGE_SIZE);
  return {
    role: "source",
    phase,
    round: phase === "precopy" ? round : null,
    elapsedMs,
    bytes: ram?.transferred ?? 0,
    arrivedPages: 0,
    donePages: (ram?.normal ?? 0) + (ram?.duplicate ?? 0),
    remainingPages: ram === undefined ? null : dirtyPages,
    dirtyPages: phase === "precopy" ? dirtyPages : null,
    faults: guestRequests(reply),
  };
}

/** What the page of a report shows beside it. */
export function driveObservations(
  timeline: Timeline<DriveMoment>,
  movement: Movement | undefined,
): Observations {
  const moments = timeline.named({
    stopped: "the guest stopped here",
    resumed: "the guest went on here",
  });
  return { zeroNs: timeline.startNs, moments, movement, latencies: undefined };
}

/** The report of a drive that has ended. */
export function driveReport(drive: FinishedDrive): SourceReport {
  const { driver, timeline, options, failure } = drive;
  const { ram } = driver.reply;
  const times = timesOf(timeline);
  const bytes = bytesOf(ram);
  const requests = guestRequests(driver.reply);
  const code = failure !== undefined && "code" in failure ? String(failure.code) : "QEMU_FAILED";
  const stood = options.keep ? timeline.ms("stopped", "resumed") : null;
  return {
    role: "source",
    version: REPORT_VERSION,
    program: VERSION,
    startedAt: timeline.startedAt,
    guest: `the guest of QEMU at ${drive.socket}`,
    peer: drive.peer,
    outcome: drive.interrupts.outcome(failure),
    error: failure === undefined ? null : { code, message: errorChain(failure) },
    downtime: downtimeOf(drive),
    times,
    rates: {
      precopy: ratePerSecond(bytes.precopy, times.precopy),
      postcopy: ratePerSecond(bytes.postcopy, times.postcopy),
    },
    memory: { guestBytes: ram?.total ?? 0, peakRssBytes: peakResidentBytes() },
    // Its faults are of an earlier life, when it received its guest.
    qemu: {
      ...qemuFigures(drive.version, driver.reply, null, stood),
      ...{ blocktimeMs: null, latencyMeanNs: null, latencyBuckets: null, requests },
    },
    phase: drive.phase,
    recoveries: driver.recoveries,
    urgentChannel: options.preempt,
    pushChannels: 1,
    favour: null,
    switchover: drive.precopy.switchover,
    rounds: drive.precopy.rounds,
    pages: pagesOf(drive),
    requests: { received: requests, served: requests, duplicate: 0, remoteShare: null },
    bytes,
    workingSet: null,
    requestServiceNs: null,
  };
}

function timesOf(timeline: Timeline<DriveMoment>): SourceReport["times"] {
  return {
    setup: timeline.ms("start", "precopy"),
    precopy: timeline.ms("precopy", "stopped"),
    device: timeline.ms("stopped", "postcopy"),
    postcopy: timeline.ms("postcopy", "drained"),
    toRunning: null,
    toDrained: timeline.ms("start", "drained"),
    total: timeline.elapsedMs,
  };
}

/** What it sent of what was asked for, apart, only the QEMU knows. */
function bytesOf(ram: MigrateReply["ram"]): SourceReport["bytes"] {
  return {
    precopy: ram?.["precopy-bytes"] ?? 0,
    package: ram?.["downtime-bytes"] ?? 0,
    postcopy: ram?.["postcopy-bytes"] ?? 0,
    requested: 0,
    total: ram?.transferred ?? 0,
  };
}

function pagesOf({ driver, precopy }: FinishedDrive): SourceReport["pages"] {
  const { ram } = driver.reply;
  const early = driver.atSwitch?.ram ?? ram;
  return {
    total: Math.ceil((ram?.total ?? 0) / TARGET_PAGE_SIZE),
    precopyNormal: early?.normal ?? 0,
    precopyZero: early?.duplicate ?? 0,
    owed: precopy.switchover?.dirtyPages ?? 0,
    pushedNormal: Math.max(0, (ram?.normal ?? 0) - (early?.normal ?? 0)),
    pushedZero: Math.max(0, (ram?.duplicate ?? 0) - (early?.duplicate ?? 0)),
    requestedNormal: 0,
    pushedCompressed: 0,
    requestedZero: 0,
    repeated: 0,
  };
}

/**
 * After a completion in precopy the peer runs the guest when QEMU is done, or sooner. After postcopy
 * only the peer knows when it ran.
 */
function downtimeOf({ driver, timeline }: FinishedDrive): SourceReport["downtime"] {
  const ms = timeline.ms("stopped", "drained");
  if (ms === null || driver.atSwitch !== undefined) return null;
  return { ms, method: "acknowledged" };
}
