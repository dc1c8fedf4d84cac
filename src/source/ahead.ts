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
import type { SourceContext } from "./context.ts";
import { owesEverything, oweDirty } from "./owed.ts";
import { checkPeer, checkStop } from "./shared.ts";
import { sendDiscards, sendSections } from "./stream.ts";

/** As many passes as it takes for the code to be compiled, if they take no longer than this. */
const PASSES = 24;
const PASSES_MS = 250;

/** Prepares the switchover of a running guest whose dirty pages are tracked. */
export function workAhead(context: SourceContext, tracker: DirtyTracker): void {
  const { guest, shared, channel } = context;
  const deadline = performance.now() + PASSES_MS;
  for (let pass = 0; pass < PASSES && (pass < 2 || performance.now() < deadline); pass++) {
    checkStop(shared);
    checkPeer(shared);
    const before = channel.bytesWritten;
    if (guest.sectionsAhead !== undefined) sendSections(context, guest.sectionsAhead());
    shared.counters.add(SOURCE.bytesPackage, channel.bytesWritten - before);
    discardDirty(context, tracker);
  }
}

/** Owes what was written since the last look, and has the destination forget it. */
export function discardDirty(context: SourceContext, tracker: DirtyTracker): void {
  const { guest, shared } = context;
  tracker.collect(shared.dirty);
  if (owesEverything(shared, guest.blocks)) return;
  sendDiscards(context, oweDirty(context));
}
