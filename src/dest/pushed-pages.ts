/**
 * Push channels beside the main one, at the destination: each is read by a thread of its own, which
 * places what comes. The listen thread, which reads the main one, meets them at the end; when one of
 * them breaks the whole link counts as broken, as pages that were under way on it are lost with it.
 */
import { closeDescriptor, raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { shutdownSocket } from "../../syscalls/socket.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { StreamError } from "../util/errors.ts";
import { awaitThread, checkStop, STOP_CHECK_MS } from "./context.ts";
import type { PageSink } from "./guest.ts";
import { addPlaceCounts } from "./placer.ts";
import type { PlaceCounts } from "./placer.ts";
import { RamLoader } from "./ram-loader.ts";
import { guestRuns } from "./refusal.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** What a thread works with that reads a push channel. */
export interface PushedContext {
  /** Which one it is, from 1 on. */
  index: number;
  channel: Channel;
  /** Of this channel. */
  shared: DestShared;
  blocks: readonly RamBlock[];
  sink: PageSink;
  /** What came of placing, for sinks that place. */
  counts: PlaceCounts | undefined;
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
    if (!isLink) throw error;
    Atomics.store(control, WORD.pushLost, 1);
    shutdownSocket(mainFd);
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
  const loader = new RamLoader(channel);
  loader.blocks = context.blocks;
  loader.sink = context.sink;
  loader.handed = () => checkStop(shared);
  loader.runs = Atomics.load(shared.control, WORD.pageRuns) === 1;
  loader.packedRuns = Atomics.load(shared.control, WORD.packedRuns) === 1;
  channel.timeoutMs = context.linkTimeoutMs;
  channel.bearsSilence = () => bearsSilence(shared);
  for (;;) {
    const end = loader.load();
    account(context, loader);
    if (end === "end of section") return;
    if (end === "memory size" || end === "multifd flush") {
      throw new StreamError("UNEXPECTED", `A record of ${end} came on a push channel`);
    }
    channel.reader.ensure(channel.reader.available + 1);
    checkStop(shared);
  }
}

function account({ shared, channel, counts }: PushedContext, loader: RamLoader): void {
  const { counters } = shared;
  counters.add(DEST.pagesPushed, loader.normal);
  counters.add(DEST.pagesPushedZero, loader.zero);
  loader.normal = 0;
  loader.zero = 0;
  counters.set(DEST.bytesReceived, channel.reader.offset);
  if (counts !== undefined) addPlaceCounts(counters, counts);
}

/**
 * While the guest runs here and lacks pages the source may be as silent as it likes: it may be a
 * QEMU whose operator has stopped it. Before, the guest runs nowhere, and had better go back to a
 * source that answers no request; afterwards there is nothing more to wait for.
 */
export function bearsSilence({ control }: DestShared): boolean {
  return guestRuns(control) && Atomics.load(control, WORD.missing) > 0;
}

/** Lets the pages of further push channels be placed: the memory is registered. */
export function letPushed({ control }: DestShared): void {
  Atomics.store(control, WORD.listening, 1);
  Atomics.notify(control, WORD.listening);
}

/**
 * The main channel has ended: waits until the others have, which may hold the last pages.
 * @throws ChannelError where one of them broke, or does not come.
 */
export function awaitPushed(shared: DestShared, linkTimeoutMs: number): void {
  const { control } = shared;
  const deadline = performance.now() + linkTimeoutMs;
  for (;;) {
    const open = Atomics.load(control, WORD.pushOpen);
    const awaited = Atomics.load(control, WORD.pushAwaited);
    const all = Atomics.load(control, WORD.missing) === 0;
    if (Atomics.load(control, WORD.pushLost) === 1) throw lostChannel();
    if (open === 0 && (awaited === 0 || all)) return;
    if (open === 0 && performance.now() > deadline) throw lostChannel();
    checkStop(shared);
    Atomics.wait(control, WORD.pushOpen, open, open === 0 ? LOOK_MS : STOP_CHECK_MS);
  }
}

/** How often it is looked whether a connection has been found. */
const LOOK_MS = 1;

function lostChannel(): ChannelError {
  return new ChannelError("PEER_CLOSED", "A channel that pages are pushed on was lost");
}

/**
 * The link has broken: ends the further push channels, by raising what their threads wait at. When it
 * returns nobody places a page any more that came over this link.
 */
export function endPushed(shared: DestShared, pushStopFd: number): void {
  const { control } = shared;
  Atomics.store(control, WORD.pushOver, 1);
  Atomics.notify(control, WORD.listening);
  for (let raised = false; ;) {
    const open = Atomics.load(control, WORD.pushOpen);
    if (open === 0) return;
    if (!raised) raiseEventDescriptor(pushStopFd);
    raised = true;
    checkStop(shared);
    Atomics.wait(control, WORD.pushOpen, open, STOP_CHECK_MS);
  }
}
