/**
 * The source's main line: opening, precopy, switchover, push, end (QEMU's `migration_thread`). It
 * runs in a worker and blocks as it likes.
 *
 * The point of no return is the last byte of the package: from then on the destination may run the
 * guest, and this side never runs it again unless the destination says in so many words that it
 * will not. Any failure before that lets the guest run on here. That the point may be passed is noted
 * durably before the guest is stopped, for whoever sends it again when this process is no more.
 */
import { monotonicNs, setThreadNice } from "../../syscalls/process.ts";
import { threadNice } from "../../syscalls/scheduling.ts";
import { ChannelError } from "../channel/channel.ts";
import { DirtyTracker, dirtyTrackingMissing } from "../ram/dirty-tracking.ts";
import { totalPages } from "../ram/block.ts";
import { SOURCE, SOURCE_PHASES } from "../report/counters.ts";
import type { SourcePhase } from "../report/counters.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";
import { formatBytes, formatCount } from "../util/units.ts";
import { passAhead, workAhead } from "./ahead.ts";
import { commit } from "./commitment.ts";
import type { SourceContext } from "./context.ts";
import type { SourceGuest } from "./guest.ts";
import { awaitShut, sendOwed, withMainLock } from "./ending.ts";
import { oweEverything, oweSomething } from "./owed.ts";
import { watchFirstRequests } from "./first-requests.ts";
import { sendAhead, sendDevicePages } from "./early-pages.ts";
import { letGuestStart } from "./postcopy.ts";
import { countDirty, markAllDirty, runPrecopy, sendLastPages } from "./precopy.ts";
import type { PrecopyEnd } from "./precopy.ts";
import { runsElsewhere } from "./receiver.ts";
import { GuestGoneError, refusalOf } from "./refusal.ts";
import { TIME, WORD } from "./shared.ts";
import {
  sendDiscards,
  sendEof,
  sendListeningPing,
  sendOpening,
  sendPackage,
  sendRamEnd,
  sendSections,
} from "./stream.ts";
import { openPreemptEarly, openUrgentChannel } from "./urgent-channel.ts";

/** How long a refusal may be on its way when the link has just ended. */
const REFUSAL_TIMEOUT_MS = 2000;
/** Favour of this thread while the guest stands still, where the host allows it: it waits for this one. */
const SWITCH_NICE = -10;
/** How a migration ended when it did not fail. */
export interface SourceOutcome {
  /** How the guest's last pages travelled. */
  completedIn: "precopy" | "postcopy";
  reason: string;
}

/** Where the guest is when a migration has failed. */
export type GuestPlace =
  /** It runs here, as before. */
  | "source"
  /** It may run at the destination; it is stopped here and must stay so. */
  | "destination";

/** A failed migration, and where that leaves the guest. */
export class MigrationError extends PostcopyError {
  readonly place: GuestPlace;
  /** The link broke and the guest is at the destination, which may be waiting for its pages. */
  readonly paused: boolean;
  readonly #isGone: boolean;

  constructor(place: GuestPlace, context: SourceContext, cause: unknown) {
    // A live one that has not left is here, whatever anybody says of it.
    const isGone = cause instanceof GuestGoneError && !(context.guest.live && place === "source");
    const hint = isGone ? undefined : failureHint(place, context);
    const text = isGone ? goneText(context) : failureText(place, context);
    super(isGone ? cause.code : "MIGRATION_FAILED", text, {
      cause,
      ...(hint === undefined ? {} : { hint }),
    });
    this.#isGone = isGone;
    this.place = place;
    this.paused = place === "destination" && cause instanceof ChannelError;
  }

  override get exitCode(): number {
    return this.#isGone ? EXIT.guestEnded : EXIT.failed;
  }
}

/** How a kept guest finishes the move that a failure has left half-way. */
export function resumeHint({ receiver }: Pick<SourceGuest, "receiver">): string {
  const what = "send it the rest by the same command with --resume";
  // What no QEMU takes is at none.
  if (receiver !== undefined) return what;
  return `${what}; a QEMU there has to be told before, at its monitor: migrate_recover tcp:HOST:PORT`;
}

function goneText({ guest }: SourceContext): string {
  return guest.live
    ? "The migration failed after the switchover, and the guest is lost"
    : "The migration failed; what was kept is as it was";
}

function failureText(place: GuestPlace, { guest, shared }: SourceContext): string {
  if (place === "destination") {
    if (Atomics.load(shared.control, WORD.ended) === 1) {
      return "Everything was sent, but the destination did not confirm that it is whole";
    }
    const owed = formatCount(Atomics.load(shared.control, WORD.owed));
    const lost = `the guest is at the destination, and ${owed} of its pages are only here`;
    const rest = guest.live ? "it is lost with this process" : "what was kept is as it was";
    return `The migration failed after the switchover: ${lost}; ${rest}`;
  }
  const unharmed = guest.live ? "the guest goes on here" : "what was kept is as it was";
  return `The migration failed; ${unharmed}`;
}

/** Most RAM blocks that a hint lists. */
const BLOCKS_SHOWN_MAX = 3;

/** What a kept guest needs of the QEMU that it is restored in: most failures lie there. */
function failureHint(place: GuestPlace, { guest, shared }: SourceContext): string | undefined {
  if (place === "destination" && Atomics.load(shared.control, WORD.ended) === 1) {
    return "look there first: the guest may well run; start it nowhere else before you know";
  }
  if (guest.live) return undefined;
  if (place === "destination") return resumeHint(guest);
  if (Atomics.load(shared.control, WORD.peerFeatures) > 0) return undefined;
  if (guest.receiver !== undefined) return guest.receiver;
  const blocks = guest.blocks
    .slice(0, BLOCKS_SHOWN_MAX)
    .map(({ name, length }) => `${name} of ${formatBytes(length)}`);
  const more = guest.blocks.length > BLOCKS_SHOWN_MAX ? ", ..." : "";
  return (
    "the QEMU's own output says why. It must have the same machine and devices " +
    `(${guest.machineType}; ${blocks.join(", ")}${more}), and before migrate_incoming: ` +
    "migrate_set_capability postcopy-ram on"
  );
}

function setPhase(context: SourceContext, phase: SourcePhase): void {
  context.shared.counters.set(SOURCE.phase, SOURCE_PHASES.indexOf(phase));
  if (phase === "precopy" || phase === "device" || phase === "postcopy") {
    context.emit({ kind: "phase", phase });
  }
}

/** Sends the guest. @throws MigrationError, which says where the guest is. */
export function migrate(context: SourceContext): SourceOutcome {
  const progress = { stopped: false, passed: false };
  try {
    return run(context, progress);
  } catch (error) {
    if (progress.passed && !refusedByPeer(context)) {
      throw new MigrationError("destination", context, goneGuest(context) ?? error);
    }
    if (progress.stopped) context.guest.resume();
    throw new MigrationError("source", context, explained(context, error));
  }
}

/** What the destination has said before it hung up, where that is all that was noticed here. */
export function explained({ shared }: SourceContext, error: unknown): unknown {
  if (!(error instanceof ChannelError)) return error;
  shared.finished.wait(REFUSAL_TIMEOUT_MS);
  return refusalOf(shared) ?? error;
}

/**
 * The destination said that it will not run the guest. One of ours decides that atomically, so a
 * SHUT with a status is always a refusal; of a QEMU it is one only before the device state was
 * loaded. The message may still be on its way to the thread that reads it.
 */
function refusedByPeer({ guest, shared }: SourceContext): boolean {
  shared.finished.wait(REFUSAL_TIMEOUT_MS);
  const { control, times } = shared;
  if (!(Atomics.load(control, WORD.shutStatus) > 0)) return false;
  // A live one has lived on there: what is here is of its past.
  if (guest.live && goneGuest({ shared }) !== undefined) return false;
  return Atomics.load(control, WORD.peerFeatures) > 0 || times[TIME.loaded] === 0;
}

/** That the destination's guest is no more, if it has said so. */
export function goneGuest({ shared }: Pick<SourceContext, "shared">): GuestGoneError | undefined {
  const refusal = refusalOf(shared);
  return refusal instanceof GuestGoneError ? refusal : undefined;
}

interface Progress {
  /** The guest has been stopped. */
  stopped: boolean;
  /** The point of no return has been passed. */
  passed: boolean;
}

function run(context: SourceContext, progress: Progress): SourceOutcome {
  const { guest, shared } = context;
  let end: PrecopyEnd;
  shared.counters.set(SOURCE.totalPages, totalPages(guest.blocks));
  setPhase(context, "setup");
  sendOpening(context);
  openPreemptEarly(context);
  const tracker = needsTracking(context) ? startTracking(context) : undefined;
  const nice = threadNice();
  try {
    end = precopy(context, tracker);
    context.noteHandOver();
    if (end.action === "postcopy") openUrgentChannel(context);
    if (tracker !== undefined && end.action === "postcopy") workAhead(context, tracker);
    setThreadNice(SWITCH_NICE);
    progress.stopped = true;
    guest.stop();
    shared.times[TIME.stopped] = monotonicNs();
    if (tracker !== undefined && end.action === "postcopy") passAhead(context, tracker);
    else tracker?.collect(shared.dirty);
    if (tracker === undefined) sendDiscards(context, oweEverything(shared, guest.blocks));
    else if (end.action === "postcopy") sendDevicePages(context);
    const dirtyPages =
      end.action === "complete" ? countDirty(context) : shared.counters.get(SOURCE.owedPages);
    context.emit({ kind: "switchover", action: end.action, reason: end.reason, dirtyPages });
    if (end.action === "complete") completeInPrecopy(context, progress);
    else postcopy(context, progress, nice);
  } finally {
    setThreadNice(nice);
    tracker?.close();
  }
  awaitShut(context);
  setPhase(context, "completed");
  return { completedIn: end.action === "complete" ? "precopy" : "postcopy", reason: end.reason };
}

/** What stands still is never dirty, and pure postcopy sends everything anyway. */
function needsTracking({ guest, settings }: SourceContext): boolean {
  return guest.live && settings.policy.kind !== "now";
}

function startTracking(context: SourceContext): DirtyTracker | undefined {
  let missing = dirtyTrackingMissing();
  if (missing === undefined) {
    const tracker = new DirtyTracker(context.guest.blocks);
    try {
      tracker.start();
      return tracker;
    } catch (error) {
      tracker.close();
      missing = `dirty pages cannot be tracked (${String(error)})`;
    }
  }
  const message = `${missing}: no precopy; every page follows after the switchover`;
  context.emit({ kind: "warning", message });
  return undefined;
}

function precopy(context: SourceContext, tracker: DirtyTracker | undefined): PrecopyEnd {
  const { guest, settings } = context;
  if (!guest.live) return { action: "postcopy", reason: "the guest stands still" };
  if (settings.policy.kind === "now") {
    return { action: "postcopy", reason: "asked to switch at once" };
  }
  if (tracker === undefined) {
    return { action: "postcopy", reason: "dirty pages cannot be tracked on this host" };
  }
  setPhase(context, "precopy");
  markAllDirty(context);
  return runPrecopy(context, tracker);
}

/** `nice` is the thread's own, to which it goes back when the guest runs. */
function postcopy(context: SourceContext, progress: Progress, nice: number): void {
  const { guest, shared, channel } = context;
  setPhase(context, "device");
  sendDiscards(context, oweSomething(context));
  sendAhead(context);
  const before = channel.bytesWritten;
  const bytes = guest.devicePackage();
  withMainLock(context, () => {
    // Requests may come as soon as the package's first command has been read; where their answers
    // go on the main channel too, they wait for the lock.
    Atomics.store(shared.control, WORD.serving, 1);
    sendPackage(context, bytes, () => commit(shared));
    progress.passed = true;
    shared.times[TIME.packageSent] = monotonicNs();
    sendListeningPing(context);
  });
  shared.counters.add(SOURCE.bytesPackage, channel.bytesWritten - before);
  setPhase(context, "postcopy");
  letGuestStart(shared);
  setThreadNice(nice);
  if (context.watch && runsElsewhere(shared)) watchFirstRequests(shared);
  sendOwed(context);
}

/** The last dirty pages and the device state in the main stream: the destination runs at EOF. */
function completeInPrecopy(context: SourceContext, progress: Progress): void {
  const { guest } = context;
  if (guest.deviceSections === undefined) throw new Error("this guest has no device sections");
  setPhase(context, "device");
  sendLastPages(context);
  sendRamEnd(context);
  sendSections(context, guest.deviceSections());
  commit(context.shared);
  Atomics.store(context.shared.control, WORD.ended, 1);
  sendEof(context);
  progress.passed = true;
}
