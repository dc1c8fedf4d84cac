/** A stress guest after its arrival: it runs here for a while, or is sent on as `source` would send it. */
import { formatPeer } from "../channel/address.ts";
import type { Peer } from "../channel/address.ts";
import type { Journal } from "../journal/journal.ts";
import type { JournalRecord } from "../journal/record.ts";
import type { StressCrew } from "../threads/stress-crew.ts";
import { formatDuration } from "../util/duration.ts";
import { EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { auditGuest, wrongGuest } from "./audit-guest.ts";
import type { Output } from "./common.ts";
import { stressText } from "./guest-words.ts";
import type { Interrupts } from "./interrupts.ts";
import { openRoute } from "./peers.ts";
import type { DestRun } from "./run-dest.ts";
import { SourceRun } from "./run-source.ts";
import { sayWaiting } from "./source-job.ts";
import type { SourceEnd } from "./source-job.ts";
import { RECOVER_TIMEOUT_MS } from "./source-flags.ts";
import type { SourceOptions } from "./source-flags.ts";

/** Lets the guest run on for a while, then checks all of it. */
export async function runHere(
  run: DestRun,
  output: Output,
  interrupts: Interrupts,
): Promise<number> {
  const crew = run.stress;
  if (crew === undefined) throw new Error("no guest arrived");
  interrupts.onInterrupt((count) => {
    if (count > 1) interrupts.exitNow();
    return true;
  });
  const { durationMs } = crew.setup.parameters;
  log.info(`The guest runs here for ${formatDuration(durationMs)}; then every page is checked`);
  await crew.runFor(durationMs, () => interrupts.interrupted);
  await crew.stop();
  const figures = await auditGuest(crew);
  crew.end();
  output.finish(run.report(figures, undefined), run.observed);
  const wrong = wrongGuest(crew, figures);
  if (wrong !== undefined) throw wrong;
  return interrupts.interrupted ? interrupts.exitCode : EXIT.ok;
}

/** What is sent on, and where. */
export interface OnwardJob {
  /** It has received the guest. */
  run: DestRun;
  onward: Peer;
  options: Omit<SourceOptions, "recoverTimeout"> & {
    recoverTimeout: number | undefined;
    json: boolean;
  };
  /** Where it is noted; undefined where nothing is. */
  journal: Journal | undefined;
  output: Output;
  interrupts: Interrupts;
}

/**
 * Sends the guest on: it runs until the next switchover, and on here if that fails. Returns the exit
 * code.
 */
export async function sendOn(job: OnwardJob): Promise<number> {
  const { run, onward, journal, output } = job;
  const crew = run.stress;
  if (crew === undefined) throw new Error("no guest to send on");
  output.finish(run.report(null, undefined), run.observed);
  const peerText = formatPeer(onward);
  log.info(`Sending the guest on to ${peerText}`);
  const record = journal?.record({ kind: "stress" }, { kind: "address", text: peerText });
  let sending: SourceRun | undefined;
  let end: SourceEnd;
  try {
    sending = await openSending(job, crew, record);
    end = await sending.run();
  } catch (failure) {
    // There was no way to the peer at all, or a mistake of this program: the guest may go on here
    // only if it is certain that it can never start there.
    if (sending !== undefined && !sending.keepsGuest()) throw failure;
    return await goOnHere(job, failure);
  }
  if (end.failure === undefined) {
    await crew.stop();
    crew.end();
  }
  output.finish(end.report, end.observed);
  if (end.failure === undefined) return EXIT.ok;
  if (end.place === "destination") throw end.failure;
  return await goOnHere(job, end.failure);
}

/** Finds the way to the peer. */
async function openSending(
  { run, onward, options, output, interrupts }: OnwardJob,
  { setup }: StressCrew,
  record: JournalRecord | undefined,
): Promise<SourceRun> {
  const peerText = formatPeer(onward);
  const { route, bridge } = await openRoute(onward, options, () => sayWaiting(peerText, options));
  return new SourceRun({
    guest: { kind: "stress", setup, blocks: run.blocks },
    guestText: stressText(setup.parameters),
    peerText,
    record,
    destination: { route, preempt: false, bridge },
    options: { ...options, recoverTimeout: options.recoverTimeout ?? RECOVER_TIMEOUT_MS },
    output,
    interrupts,
  });
}

/** The guest could not be sent on: it runs on here, and the command ends with `failure`. */
async function goOnHere({ run, output, interrupts }: OnwardJob, failure: unknown): Promise<number> {
  log.warn("The guest could not be sent on, and goes on here");
  await runHere(run, output, interrupts);
  if (interrupts.interrupted) return interrupts.exitCode;
  throw failure;
}
