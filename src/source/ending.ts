/** The end of postcopy at the source, however it began: the push, END and EOF, and SHUT. */
import { ChannelError } from "../channel/channel.ts";
import type { SourceContext } from "./context.ts";
import { finishUrgent, pushOwed } from "./postcopy.ts";
import { awaitPushChannels, tellPushChannels } from "./push-channels.ts";
import { checkPeer } from "./refusal.ts";
import { checkStop, PUSHING, WORD } from "./shared.ts";
import { sendEof, sendRamEnd } from "./stream.ts";

/**
 * Longest wait for the end after everything has been sent: a snapshot of a large guest is made
 * durable first, on a disk of any speed. A destination that is gone is noticed much sooner.
 */
const SHUT_TIMEOUT_MS = 3_600_000;
/** How often a wait for another thread looks whether it should stop. */
const STOP_CHECK_MS = 200;

/** Writes on the main channel while no other thread does. */
export function withMainLock({ shared }: SourceContext, write: () => void): void {
  shared.mainLock.lock();
  try {
    write();
  } finally {
    shared.mainLock.unlock();
  }
}

/**
 * Sends all that is owed, and the end of the stream. A peer that takes pages twice may ask for those
 * that are under way until it has them all: it waits for no end of the urgent channel then.
 */
export function sendOwed(context: SourceContext): void {
  const { shared } = context;
  const letOthers = (): void => tellPushChannels(shared, PUSHING.now);
  pushOwed(context, letOthers);
  // Where they were not needed, they still end as they ought to.
  letOthers();
  awaitPushChannels(shared);
  if (Atomics.load(shared.control, WORD.repeats) === 0) finishUrgent(context);
  withMainLock(context, () => {
    sendRamEnd(context);
    Atomics.store(shared.control, WORD.ended, 1);
    sendEof(context);
  });
}

/** Waits for SHUT, which says that every page is in place. */
export function awaitShut({ shared }: SourceContext, limitMs = SHUT_TIMEOUT_MS): void {
  const deadline = performance.now() + limitMs;
  while (!shared.finished.wait(STOP_CHECK_MS)) {
    checkStop(shared);
    if (performance.now() > deadline) {
      throw new ChannelError("PEER_SILENT", "The destination did not confirm the end");
    }
  }
  checkPeer(shared);
}
