/**
 * Recovery at the source (QEMU's `postcopy_do_resume`): over a new connection the destination says
 * what it has, and what it lacks is sent. Nothing of the first connection is needed for that but the
 * guest itself, so a process that was started anew does the same.
 *
 *     source                                   destination
 *     RECV_BITMAP, once a RAM block
 *                                              RECV_BITMAP and the bitmap, once a block
 *     PINGs with the guest's identity
 *                                              PONGs, the last with what is known of it
 *     RESUME
 *                                              RESUME_ACK, then the requests that are still open
 *     pages, END, EOF
 *                                              SHUT
 */
import { timeFor } from "../channel/time-limits.ts";
import { totalPages } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { SOURCE, SOURCE_PHASES } from "../report/counters.ts";
import { writeCommand } from "../stream/command.ts";
import { StreamWriter } from "../stream/writer.ts";
import { PostcopyError } from "../util/errors.ts";
import { committedBefore } from "./commitment.ts";
import type { SourceContext } from "./context.ts";
import { awaitShut, sendOwed } from "./ending.ts";
import { explained, MigrationError } from "./migrate.ts";
import type { SourceOutcome } from "./migrate.ts";
import { followHostPages } from "./host-pages.ts";
import { countOwedPages } from "./owed.ts";
import { awaitAnswer } from "./answer.ts";
import { confirmIdentity } from "./identity.ts";
import { GuestGoneError, OTHER_GUEST } from "./refusal.ts";
import { IDENTITY_ANSWER, PUSHING, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";
import { sendCommand } from "./stream.ts";
import { openPreempt, openPreemptEarly, openUrgentChannel, sendHello } from "./urgent-channel.ts";

/** Makes what the threads share ready for a new connection. None of them is at work. */
export function prepareResume(shared: SourceShared, blocks: readonly RamBlock[]): void {
  const { control } = shared;
  committedBefore(shared);
  Atomics.store(control, WORD.peerFeatures, -1);
  Atomics.store(control, WORD.pageRuns, 0);
  Atomics.store(control, WORD.repeats, 0);
  Atomics.store(control, WORD.packedRuns, 0);
  Atomics.store(control, WORD.shutStatus, -1);
  Atomics.store(control, WORD.ended, 0);
  Atomics.store(control, WORD.serving, 0);
  Atomics.store(control, WORD.bitmapsAwaited, blocks.length);
  Atomics.store(control, WORD.resumeAwaited, 0);
  Atomics.store(control, WORD.pushing, PUSHING.notYet);
  Atomics.store(control, WORD.pushLost, 0);
  Atomics.store(control, WORD.identityAnswer, IDENTITY_ANSWER.awaited);
  for (const event of [shared.finished, shared.peerKnown, shared.bitmapsKnown, shared.resumed]) {
    event.clear();
  }
}

/** Sends what the destination lacks. @throws MigrationError; PostcopyError OTHER_GUEST. */
export function resumeMigration(context: SourceContext): SourceOutcome {
  try {
    return resume(context);
  } catch (error) {
    // Nothing was sent to whoever is there.
    if (error instanceof PostcopyError && error.code === OTHER_GUEST) throw error;
    const cause = explained(context, error);
    const isHere = cause instanceof GuestGoneError && !context.guest.live;
    const why = cause instanceof GuestGoneError ? cause : error;
    throw new MigrationError(isHere ? "source" : "destination", context, why);
  }
}

function resume(context: SourceContext): SourceOutcome {
  const { guest, shared } = context;
  shared.counters.set(SOURCE.totalPages, totalPages(guest.blocks));
  followHostPages(shared, guest.blocks);
  setPhase(shared, "recover");
  // At once: a QEMU of 10.1 and later looks at the first bytes, and does nothing else until then.
  askForBitmaps(context);
  openPreemptEarly(context);
  const { linkTimeoutMs } = context.settings;
  const limitMs = timeFor(totalPages(guest.blocks) / 8, linkTimeoutMs);
  awaitAnswer(
    shared,
    (ms) => shared.bitmapsKnown.wait(ms),
    limitMs,
    "did not say which pages it has",
  );
  noteOwed(context);
  if (context.settings.preempt) openPreempt(context);
  confirmIdentity(context);
  // Requests come as soon as the destination has read it.
  Atomics.store(shared.control, WORD.serving, 1);
  Atomics.store(shared.control, WORD.resumeAwaited, 1);
  sendCommand(context, { kind: "postcopyResume" });
  awaitAnswer(shared, (ms) => shared.resumed.wait(ms), linkTimeoutMs, "did not resume");
  sendHello(context);
  openUrgentChannel(context);
  setPhase(shared, "postcopy");
  context.emit({ kind: "phase", phase: "postcopy" });
  sendOwed(context);
  awaitShut(context);
  setPhase(shared, "completed");
  return { completedIn: "postcopy", reason: "resumed" };
}

function setPhase({ counters }: SourceShared, phase: "recover" | "postcopy" | "completed"): void {
  counters.set(SOURCE.phase, SOURCE_PHASES.indexOf(phase));
}

function askForBitmaps({ guest, channel }: SourceContext): void {
  const writer = new StreamWriter();
  for (const { name } of guest.blocks) writeCommand(writer, { kind: "recvBitmap", block: name });
  channel.write(writer.bytes);
}

/** What is owed now. What was under way when the link broke is sent again, so the sum may grow. */
function noteOwed(context: SourceContext): void {
  const { guest, shared } = context;
  const owed = guest.blocks.reduce((sum, block) => {
    return sum + (shared.owed[block.index]?.count() ?? 0);
  }, 0);
  Atomics.store(shared.control, WORD.owed, owed);
  const { counters } = shared;
  const sent =
    counters.get(SOURCE.pagesPushed) +
    counters.get(SOURCE.pagesPushedZero) +
    counters.get(SOURCE.pagesRequested) +
    counters.get(SOURCE.pagesRequestedZero);
  const total = Math.max(counters.get(SOURCE.owedPages), sent + countOwedPages(context));
  counters.set(SOURCE.owedPages, total);
}
