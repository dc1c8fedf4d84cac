/**
 * Push channels beside the main one, at the source: each has a thread of its own, which claims pages in
 * the same bitmap. They are opened ahead of the switchover and begin with the push of the main channel,
 * which waits for them at its end. Where one breaks, the whole link counts as broken.
 */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { shutdownSocket } from "../../syscalls/socket.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import { channelHead } from "../stream/further-channel.ts";
import { errorChain } from "../util/errors.ts";
import type { SourceContext } from "./context.ts";
import { pushPages } from "./postcopy.ts";
import type { PushContext } from "./postcopy.ts";
import { checkPeer, checkStop, PUSHING, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** How often a wait for another thread looks whether it should stop. */
const STOP_CHECK_MS = 200;
/** How often it is looked whether the recorded working set has gone. */
const LOOK_MS = 1;

/**
 * Opens as many as both ends want, at most `most`, and gives each to a thread. Returns how many there
 * are: fewer, with a warning, where a connection cannot be had.
 */
export function openPushChannels(context: SourceContext, token: number, most: number): number {
  const { settings, shared } = context;
  // A limit is one for the whole push, and one channel keeps it.
  const wanted = settings.maxPostcopyBandwidth > 0 ? 0 : Math.min(settings.pushChannels, most);
  for (let opened = 0; opened < wanted; opened++) {
    const fd = connectPush(context, token);
    if (fd === undefined) return opened;
    Atomics.add(shared.control, WORD.pushOpen, 1);
    context.startPush(fd);
  }
  return wanted;
}

/** A connection whose head is sent, or undefined, with a warning, where that fails. */
function connectPush(context: SourceContext, token: number): number | undefined {
  if (context.connectUrgent === undefined) return undefined;
  try {
    const fd = context.connectUrgent();
    try {
      context.openChannel(fd).write(channelHead("push", token));
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
    return fd;
  } catch (error) {
    if (error instanceof StoppedError || !(error instanceof Error)) throw error;
    const message = `The push goes on fewer channels than it might: ${errorChain(error)}`;
    context.emit({ kind: "warning", message });
    return undefined;
  }
}

/** Lets the threads of further push channels begin, or, with PUSHING.over, end. */
export function tellPushChannels({ control }: SourceShared, what: number): void {
  Atomics.store(control, WORD.pushing, what);
  Atomics.notify(control, WORD.pushing);
}

/** Nothing is owed any more: waits until it has been written on every channel. */
export function awaitPushChannels(shared: SourceShared): void {
  const { control } = shared;
  for (;;) {
    const open = Atomics.load(control, WORD.pushOpen);
    if (Atomics.load(control, WORD.pushLost) === 1) {
      throw new ChannelError("PEER_CLOSED", "A channel that pages are pushed on was lost");
    }
    if (open === 0) return;
    checkStop(shared);
    checkPeer(shared);
    Atomics.wait(control, WORD.pushOpen, open, STOP_CHECK_MS);
  }
}

/**
 * The thread of a push channel: pushes beside the main one, from when that begins and the recorded
 * working set, which is the main one's alone, is on its way. `context.channel` is this channel; `mainFd`
 * the main connection, which is cut where this one breaks.
 */
export function runPushChannel(context: PushContext, mainFd: number): void {
  const { control } = context.shared;
  try {
    if (!awaitBegin(context.shared)) return;
    pushPages(context, { lock: undefined, sectionId: undefined });
    context.channel.writeAll(context.makeWriter().finishUrgent());
  } catch (error) {
    // What the link has come to the main channel's thread sees as well.
    if (error instanceof StoppedError || context.shared.finished.isSet) return;
    Atomics.store(control, WORD.pushLost, 1);
    shutdownSocket(mainFd);
    if (!(error instanceof ChannelError)) throw error;
  } finally {
    Atomics.sub(control, WORD.pushOpen, 1);
    Atomics.notify(control, WORD.pushOpen);
  }
}

/** Waits until the push begins and the recorded working set is on its way; false if it never will. */
function awaitBegin(shared: SourceShared): boolean {
  const { control } = shared;
  for (;;) {
    const pushing = Atomics.load(control, WORD.pushing);
    if (pushing === PUSHING.over) return false;
    checkStop(shared);
    if (pushing === PUSHING.notYet) {
      Atomics.wait(control, WORD.pushing, PUSHING.notYet, STOP_CHECK_MS);
    } else if (Atomics.load(control, WORD.awaited) > 0) {
      Atomics.wait(control, WORD.pushing, PUSHING.now, LOOK_MS);
    } else return true;
  }
}
