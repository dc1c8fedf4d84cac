/** What is sent, where and how; and how it ended. */
import type { SourceGuestData } from "../guests/registry.ts";
import type { JournalRecord } from "../journal/record.ts";
import type { Observations } from "../report/observations.ts";
import type { SourceReport } from "../report/report.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import type { MigrationResult, Route } from "../threads/tasks.ts";
import type { ThreadError } from "../threads/thread.ts";
import type { TlsBridge } from "../threads/tls-bridge.ts";
import { formatDuration } from "../util/duration.ts";
import { EXIT, errorChain } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatCount } from "../util/units.ts";
import type { Output } from "./common.ts";
import type { Interrupts } from "./interrupts.ts";
import type { SourceOptions } from "./source-flags.ts";

/** How to get to the destination. */
export interface Destination {
  route: Route;
  /** It is a QEMU that waits for a preempt channel. */
  preempt: boolean;
  /** And of a QEMU that reads nothing before it is there. */
  preemptFirst?: boolean;
  /** What leads there over TLS; it is closed at the end of the run. */
  bridge?: TlsBridge | undefined;
}

/** Says that nobody is there yet. */
export function sayWaiting(peerText: string, options: { connectTimeout: number }): void {
  const patience = formatDuration(options.connectTimeout);
  log.info(`Nobody is at ${peerText} yet; trying for ${patience}`);
}

/**
 * The same of a send that is resumed: there is as much patience as for a link that broke, and what this
 * process has is nobody's only copy of anything.
 */
export function sayNobodyResumes(
  peerText: string,
  patienceMs: number,
  takesQemu: boolean,
  output: Output,
): void {
  const qemu = takesQemu ? `; a QEMU there has to be told: migrate_recover ${peerText}` : "";
  const patience = formatDuration(patienceMs);
  output.warn(
    "NOBODY_THERE",
    `Nobody listens at ${peerText} yet; trying for ${patience} (--recover-timeout). Nothing is sent so ` +
      `far, and Ctrl-C ends it${qemu}`,
  );
}

/** What is sent, where, and how. */
export interface SourceJob {
  guest: SourceGuestData;
  /** Which guest in files it is; undefined for a guest that lives here. */
  identity?: GuestIdentity;
  /** The guest in words, for the report. */
  guestText: string;
  /** The peer as people know it. */
  peerText: string;
  /** How to get there; of a QEMU that is being started it is known only after a while. */
  destination: Destination | Promise<Destination>;
  /** When the work began, on the monotonic clock, where that is earlier than the sending. */
  startNs?: number;
  /** Target pages of the recorded working set, counted over all blocks. */
  workingSet?: Uint32Array | undefined;
  /** What of it is pushed before everything else. */
  replay?: Uint32Array;
  /** Nothing is recorded of what a kept guest asks for first: the push gives it time to ask. */
  watch?: boolean;
  options: SourceOptions & { json: boolean };
  /** The destination has a part of the guest already: send it the rest. */
  resume?: boolean;
  /** Says that nobody is there yet, where that is not just said. */
  waiting?: () => void;
  /** Its entry in the journal; undefined where none is kept. */
  record: JournalRecord | undefined;
  /** The entry is written already, earlier than when the guest is about to be handed over. */
  noted?: boolean;
  output: Output;
  interrupts: Interrupts;
}

/** What it costs to end a send behind the switch, with `owed` pages that are only here. */
export function costText(job: Pick<SourceJob, "guest" | "noted" | "resume">, owed: number): string {
  const { guest, noted = false, resume = false } = job;
  const where = `The guest runs at the destination already; ${formatCount(owed)} of its pages are only here`;
  if (guest.kind === "stress") return `${where}, and it is lost without them`;
  // The QEMU of --run is ended with its send; one that is resumed waits.
  return noted && !resume
    ? `${where}: it ends without them, and what was kept is as it was`
    : `${where}: it waits without them, until the same command with --resume sends them`;
}

/** How it ended. */
export interface SourceEnd {
  report: SourceReport;
  observed: Observations;
  /** Target pages that were asked for, counted over all blocks, in order. */
  requested: Uint32Array;
  /** Undefined when the guest is at the destination, whole. */
  failure: ThreadError | undefined;
  /** Where the guest is. */
  place: "source" | "destination";
}

/** Where the guest is. */
export function placeAfter(result: MigrationResult): SourceEnd["place"] {
  return result.ok ? "destination" : result.place;
}

/** The exit code of a migration that ended; a failure that nobody asked for is thrown. */
export function exitCode(job: Pick<SourceJob, "interrupts">, end: SourceEnd): number {
  if (end.failure === undefined) return EXIT.ok;
  if (job.interrupts.interrupted) {
    if (end.place === "destination") log.warn(errorChain(end.failure));
    return job.interrupts.exitCode;
  }
  throw end.failure;
}
