/**
 * Push channels beside the main one, at the destination: each is read by a thread of its own, which
 * places what comes. The listen thread, which reads the main one, meets them at the end; when one of
 * them breaks the whole link counts as broken, as pages that were under way on it are lost with it.
 */
import { closeDescriptor, raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { shutdownSocket } from "../../syscalls/socket.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import { StreamError } from "../util/errors.ts";
import { awaitThread, checkStop, STOP_CHECK_MS } from "./context.ts";
import { countPushed, openPushLoader } from "./pushed-records.ts";
import type { PushedRecords } from "./pushed-records.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** What a thread works with that reads a push channel. */
export interface PushedContext extends PushedRecords {
  /** Which one it is, from 1 on. */
  index: number;
  linkTimeoutMs: number;
  /** The main connection: it is cut where this one breaks, so that whoever reads it knows. */
  mainFd: number;
}

/** Places what comes on a push channel up to its end, and closes it. */
export function runPushed(context: PushedContext): void {
  const { channel, shared, index, mainFd } = context;
  const { control } = shared;
  try {
    shared.placingLocks.takeChannel(index);
    awaitThread(shared, (ms) => waitForOne(control, WORD.listening, ms) || isOver(shared));
    if (!isOver(shared)) placePages(context);
  } catch (error) {
    const isLink = error instanceof ChannelError;
    // Nobody waits for it any more, whatever it has come to.
    if (isOver(shared) && (isLink || error instanceof StoppedError)) return;
    Atomics.store(control, WORD.pushLost, 1);
    shutdownSocket(mainFd);
    if (isLink) return;
    // Before this one counts as ended: what became of it is why the migration fails.
    Atomics.store(control, WORD.failed, 1);
    throw error;
  } finally {
    closeDescriptor(channel.fd);
    Atomics.sub(control, WORD.pushOpen, 1);
    Atomics.notify(control, WORD.pushOpen);
  }
}

function isOver({ control }: DestShared): boolean {
  return Atomics.load(control, WORD.pushOver) === 1;
}

/** Whether a word becomes 1 within `ms`. */
function waitForOne(control: Int32Array<SharedArrayBuffer>, word: number, ms: number): boolean {
  if (Atomics.load(control, word) === 0) Atomics.wait(control, word, 0, ms);
  return Atomics.load(control, word) === 1;
}

function placePages(context: PushedContext): void {
  const { channel, shared } = context;
  const loader = openPushLoader(context);
  channel.timeoutMs = context.linkTimeoutMs;
  // As long as there is more to come on the main one, that shows whether the source is there.
  channel.bearsSilence = () => Atomics.load(shared.control, WORD.mainEnded) === 0;
  while (!isOver(shared)) {
    const end = loader.load();
    countPushed(context, loader);
    if (end === "end of section") return;
    if (end === "memory size" || end === "multifd flush") {
      throw new StreamError("UNEXPECTED", `A record of ${end} came on a push channel`);
    }
    channel.reader.ensure(channel.reader.available + 1);
    checkStop(shared);
  }
}

/** Lets the pages of further push channels be placed: the memory is registered. */
export function letPushed({ control }: DestShared): void {
  Atomics.store(control, WORD.listening, 1);
  Atomics.notify(control, WORD.listening);
}

function lostChannel(): ChannelError {
  return new ChannelError("PEER_CLOSED", "A channel that pages are pushed on was lost");
}

/** How often it is looked whether a connection has been found. */
const LOOK_MS = 1;

/**
 * The main channel has ended: waits until the others have, which may hold the last pages. When it
 * returns nobody places a page any more that comes on one.
 * @throws ChannelError where one of them broke, or does not come.
 */
export function awaitPushed(shared: DestShared, linkTimeoutMs: number): void {
  const { control } = shared;
  Atomics.store(control, WORD.mainEnded, 1);
  const deadline = performance.now() + linkTimeoutMs;
  for (;;) {
    // In this order: who finds a channel counts it as open first, and then as awaited no more.
    const awaited = Atomics.load(control, WORD.pushAwaited);
    const open = Atomics.load(control, WORD.pushOpen);
    if (Atomics.load(control, WORD.pushLost) === 1) throw lostChannel();
    if (open === 0 && (awaited <= 0 || Atomics.load(control, WORD.missing) === 0)) break;
    if (open === 0 && performance.now() > deadline) throw lostChannel();
    checkStop(shared);
    Atomics.wait(control, WORD.pushOpen, open, open === 0 ? LOOK_MS : STOP_CHECK_MS);
  }
  // One that is found from now on has nothing that is missing.
  closeDoor(shared);
}

/**
 * The link has broken: ends the further push channels, by raising what their threads wait at. When it
 * returns nobody places a page any more that came over this link.
 */
export function endPushed(shared: DestShared, pushStopFd: number): void {
  const { control } = shared;
  closeDoor(shared, pushStopFd);
  // A link that is recovered has none.
  for (const word of [WORD.pushLost, WORD.pushAwaited, WORD.mainEnded]) {
    Atomics.store(control, word, 0);
  }
}

/** No channel that is found is read from now on, and those that are have ended when it returns. */
function closeDoor(shared: DestShared, pushStopFd?: number): void {
  const { control } = shared;
  Atomics.store(control, WORD.pushOver, 1);
  Atomics.notify(control, WORD.listening);
  for (let stopFd = pushStopFd; ; stopFd = undefined) {
    const open = Atomics.load(control, WORD.pushOpen);
    if (open === 0) return;
    if (stopFd !== undefined) raiseEventDescriptor(stopFd);
    checkStop(shared);
    Atomics.wait(control, WORD.pushOpen, open, STOP_CHECK_MS);
  }
}
