/**
 * What the switchover needs is done while the guest still runs, as far as it can be: with the guest
 * stopped, only what it has changed since is left of it. A pass sends the device state, or what is new
 * in it, and owes and discards the pages that are dirty; while it runs the guest dirties further ones,
 * fewer in each shorter pass, of which most are owed already.
 *
 * The passes are a rehearsal as well: each is the very work that is done once more with the guest
 * stopped, and code that this process runs for the first time takes ten times as long.
 */
import type { DirtyTracker } from "../ram/dirty-tracking.ts";
import { SOURCE } from "../report/counters.ts";
import { aheadPing } from "../stream/hello.ts";
import { waitWhile } from "../sync/park.ts";
import { awaitAnswer } from "./answer.ts";
import type { SourceContext } from "./context.ts";
import { owesEverything, oweDirty } from "./owed.ts";
import { WORD } from "./shared.ts";
import { sendCommand, sendDiscards, sendSections } from "./stream.ts";

/** As many passes as it takes for the code to be compiled, if they take no longer than this. */
const PASSES = 24;
const PASSES_MS = 250;

/** Prepares the switchover of a running guest whose dirty pages are tracked. */
export function workAhead(context: SourceContext, tracker: DirtyTracker): void {
  const deadline = performance.now() + PASSES_MS;
  for (let pass = 1; pass <= PASSES && (pass <= 2 || performance.now() < deadline); pass++) {
    passAhead(context, tracker);
    awaitPass(context, pass);
  }
}

/** Sends what is new in the device state, and owes and discards what was written since the last pass. */
export function passAhead(context: SourceContext, tracker: DirtyTracker): void {
  const { guest, shared, channel } = context;
  const before = channel.bytesWritten;
  const devices = Atomics.load(shared.control, WORD.devicesAhead) === 1;
  if (devices && guest.sectionsAhead !== undefined) sendSections(context, guest.sectionsAhead());
  shared.counters.add(SOURCE.bytesPackage, channel.bytesWritten - before);
  tracker.collect(shared.dirty);
  if (owesEverything(shared, guest.blocks)) return;
  sendDiscards(context, oweDirty(context));
}

/** Waits until the destination has done a pass: what it is behind with the guest would wait for. */
function awaitPass(context: SourceContext, pass: number): void {
  const { shared, settings } = context;
  sendCommand(context, { kind: "ping", value: aheadPing(pass) });
  const done = (ms: number): boolean => {
    const last = Atomics.load(shared.control, WORD.aheadPass);
    if (last < pass) waitWhile(shared.control, WORD.aheadPass, last, ms);
    return Atomics.load(shared.control, WORD.aheadPass) >= pass;
  };
  awaitAnswer(shared, done, settings.linkTimeoutMs, "answered no PING");
}
