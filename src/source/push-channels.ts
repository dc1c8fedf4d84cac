/**
 * Push channels beside the main one, at the source: each has a thread of its own, which claims pages in
 * the same bitmap. They are opened ahead of the switchover and begin with the push of the main channel,
 * which waits for them at its end. Where one breaks, the whole link counts as broken.
 */
import { shutdownSocket } from "../../syscalls/socket.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import { LARGE_PAGE_BYTES } from "../stream/hello.ts";
import type { SourceContext } from "./context.ts";
import { tellFewer } from "./fewer-channels.ts";
import { openFurtherChannel } from "./further-channel.ts";
import { followHostPages } from "./host-pages.ts";
import { pushPages } from "./postcopy.ts";
import type { PushContext } from "./postcopy.ts";
import { checkPeer } from "./refusal.ts";
import { checkStop, PUSHING, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** How often a wait for another thread looks whether it should stop. */
const STOP_CHECK_MS = 200;
const FEWER = "The push goes on fewer channels than it might";

/**
 * Opens as many as both ends want, at most `most`, and gives each to a thread. Returns how many there
 * are: fewer, with a warning, where a connection cannot be had.
 */
export function openPushChannels(context: SourceContext, token: number, most: number): number {
  const { settings, shared } = context;
  const single = whySingle(context);
  const wanted = single === undefined ? Math.min(settings.pushChannels, most) : 0;
  tellFewer(context, 1 + wanted, single ?? `the destination takes ${1 + most}`);
  for (let opened = 0; opened < wanted; opened++) {
    const fd = openFurtherChannel(context, "push", token, FEWER);
    if (fd === undefined) return opened;
    Atomics.add(shared.control, WORD.pushOpen, 1);
    context.startPush(fd);
  }
  return wanted;
}

/** Why there is no further channel, however many both ends would have; undefined where there may be. */
function whySingle({ guest, settings, encrypted }: SourceContext): string | undefined {
  if (encrypted) return "over TLS one thread encrypts for all of them";
  if (settings.maxPostcopyBandwidth > 0) return "--max-postcopy-bandwidth is kept by one";
  // Each channel of the destination needs room for a host page that is put together.
  return guest.blocks.some(({ pageSize }) => pageSize > LARGE_PAGE_BYTES)
    ? "the guest has host pages of more than 2 MiB"
    : undefined;
}

/**
 * Lets the threads of further push channels begin, or, with PUSHING.over, end without having begun. Who
 * has begun is not told otherwise.
 */
export function tellPushChannels({ control }: SourceShared, what: number): void {
  Atomics.compareExchange(control, WORD.pushing, PUSHING.notYet, what);
  Atomics.notify(control, WORD.pushing);
}

/** One of them is lost, and the link with it: cuts the main connection `mainFd`. */
export function losePushChannel({ control }: SourceShared, mainFd: number): void {
  Atomics.store(control, WORD.pushLost, 1);
  Atomics.notify(control, WORD.pushOpen);
  shutdownSocket(mainFd);
}

/** Nothing is owed any more: waits until it has been written on every channel. */
export function awaitPushChannels(shared: SourceShared): void {
  const { control } = shared;
  for (;;) {
    const open = Atomics.load(control, WORD.pushOpen);
    checkStop(shared);
    checkPeer(shared);
    if (Atomics.load(control, WORD.pushLost) === 1) {
      throw new ChannelError("PEER_CLOSED", "A channel that pages are pushed on was lost");
    }
    if (open === 0) return;
    Atomics.wait(control, WORD.pushOpen, open, STOP_CHECK_MS);
  }
}

/**
 * The thread of a push channel: pushes beside the main one, from when that has come behind the recorded
 * working set, which is its alone. `context.channel` is this channel, the one of `index`, from 1 on;
 * `mainFd` the main connection, which is cut where this one breaks.
 */
export function runPushChannel(context: PushContext, index: number, mainFd: number): void {
  const { guest, shared, channel, settings } = context;
  const { control } = shared;
  let isWhole = false;
  try {
    if (awaitBegin(shared)) {
      // They may have been chosen since this thread opened the guest.
      followHostPages(shared, guest.blocks);
      const start = index / (1 + settings.pushChannels);
      pushPages(context, { lock: undefined, sectionId: undefined, start });
      channel.writeAll(context.makeWriter().finishUrgent());
    }
    isWhole = true;
  } catch (error) {
    // What the link has come to the main channel's thread sees as well.
    if (error instanceof StoppedError || shared.finished.isSet) return;
    shutdownSocket(mainFd);
    if (!(error instanceof ChannelError)) throw error;
  } finally {
    // Pages that it has claimed count as sent, and were not.
    if (!isWhole) Atomics.store(control, WORD.pushLost, 1);
    Atomics.sub(control, WORD.pushOpen, 1);
    Atomics.notify(control, WORD.pushOpen);
  }
}

/** Waits until the push has come so far; false if it never will. */
function awaitBegin(shared: SourceShared): boolean {
  const { control } = shared;
  for (;;) {
    const pushing = Atomics.load(control, WORD.pushing);
    if (pushing !== PUSHING.notYet) return pushing === PUSHING.now;
    checkStop(shared);
    Atomics.wait(control, WORD.pushing, PUSHING.notYet, STOP_CHECK_MS);
  }
}
