/**
 * Postcopy at the source: what is owed is pushed in the background, and what is asked for is sent at
 * once (request-server.ts). Both claim pages in the same bitmap, under the lock of the channel that will
 * carry them, so that no page is sent twice by chance: a QEMU destination pauses on a repeat.
 */
import type { Channel } from "../channel/channel.ts";
import { UNSENT_BYTES_MAX } from "../channel/tune.ts";
import type { Mutex } from "../sync/mutex.ts";
import { limitUnsent } from "../../syscalls/socket.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PING_WORKING_SET } from "../stream/hello.ts";
import { SOURCE } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import { Bandwidth } from "./bandwidth.ts";
import type { SourceContext } from "./context.ts";
import { CopyChooser } from "./copy-chooser.ts";
import { NeighbourOrder } from "./neighbour-order.ts";
import { PushCompression } from "./push-compression.ts";
import { ListedOrder } from "./push-order.ts";
import type { PushOrder } from "./push-order.ts";
import { PushPace } from "./push-pace.ts";
import type { RamWriter } from "./ram-writer.ts";
import { addHostPages, noteSent } from "./send-pages.ts";
import { checkPeer } from "./refusal.ts";
import { checkStop, stopAsked, TIME, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";
import { SpreadingOrder } from "./spreading-order.ts";
import { RAM_SECTION_ID, sendCommand } from "./stream.ts";

/** Target pages pushed between two looks at the lock: 128 KiB. */
const PAGES_PER_CHUNK = 32;
/** The same where requested pages go on a channel of their own, and the push may be as fast as it can. */
const PAGES_PER_LONG_CHUNK = 128;
/** How long the push waits for the guest to start; it then starts beside it. */
const START_GRACE_MS = 100;
const START_LOOK_MS = 0.2;
/** Pause between two looks at pages that others have claimed. */
const OTHERS_MS = 1;

/** Where pages are pushed. */
export interface PushLane {
  /** Held while a chunk is claimed and written; undefined where nobody else writes on the channel. */
  lock: Mutex | undefined;
  /** The section that a chunk is; undefined for bare records. */
  sectionId: number | undefined;
  /** Behind which share of memory it begins: apart from others, each pushes long runs. */
  start: number;
  /** Called when no recorded page is left to push, which may be more than once. */
  behindRecorded?: (() => void) | undefined;
}

/** What a push works with. */
export type PushContext = Pick<
  SourceContext,
  "guest" | "shared" | "settings" | "channel" | "replay" | "makeWriter" | "giveWay"
>;

/** Pushes what is owed on the main channel, until nothing is. */
export function pushOwed(context: SourceContext, behindRecorded?: () => void): void {
  const { shared, channel } = context;
  const urgent = Atomics.load(shared.control, WORD.urgentFd) >= 0;
  // With one channel requests wait for its lock, and so for whoever holds it.
  if (!urgent) limitChannel(channel);
  pushPages(context, { ...mainLane(shared), behindRecorded });
}

/** The main channel, which others write on as well. */
export function mainLane({ mainLock }: SourceShared): PushLane {
  return { lock: mainLock, sectionId: RAM_SECTION_ID, start: 0 };
}

/**
 * Pushes what is owed on `context.channel`, until nothing is: the recorded working set first, then what
 * lies around it, then out of the places of the last requests.
 */
export function pushPages(context: PushContext, lane: PushLane): void {
  const { guest, shared, settings, channel } = context;
  const urgent = Atomics.load(shared.control, WORD.urgentFd) >= 0;
  if (urgent) context.giveWay();
  const writer = context.makeWriter();
  writer.runs = Atomics.load(shared.control, WORD.pageRuns) === 1;
  const bandwidth = new Bandwidth(settings.maxPostcopyBandwidth);
  const recorded = new ListedOrder(context.replay, guest.blocks, shared);
  const around = new NeighbourOrder(context.replay, guest.blocks, shared);
  const rest = new SpreadingOrder(guest.blocks, shared, lane.start);
  const orders: PushOrder[] = [recorded, around, rest];
  const chooser = new CopyChooser();
  const compression = new PushCompression(
    context,
    writer,
    pagesPerChunk(context) * TARGET_PAGE_SIZE,
  );
  const repeats = Atomics.load(shared.control, WORD.repeats) === 1;
  const pace = new PushPace(channel, urgent && !repeats);
  const hurry = (): boolean => {
    const done = Atomics.load(shared.control, WORD.owed) <= 0;
    return done || stopAsked(shared) || shared.finished.isSet;
  };
  // It stands between sections.
  const workingSet = lane.sectionId === undefined ? undefined : new WorkingSetPing(context);
  try {
    for (;;) {
      const owed = Atomics.load(shared.control, WORD.owed);
      if (owed <= 0) break;
      checkStop(shared);
      workingSet?.send();
      checkPeer(shared);
      rest.followRequests();
      const order = orders.find((each) => each.find());
      if (order === undefined) {
        // What is owed others have claimed, and are about to send.
        Atomics.wait(shared.control, WORD.owed, owed, OTHERS_MS);
        continue;
      }
      if (order !== recorded) lane.behindRecorded?.();
      writer.kind = order === recorded ? KIND.replay : KIND.push;
      const before = channel.bytesWritten;
      compression.before(order);
      chooser.before(writer);
      const pages = shared.counters.get(SOURCE.pagesPushed);
      pushChunk(context, writer, order, lane);
      chooser.after(writer, shared.counters.get(SOURCE.pagesPushed) - pages);
      const bytes = channel.bytesWritten - before;
      shared.counters.add(SOURCE.bytesPostcopy, bytes);
      const written = performance.now();
      bandwidth.spend(bytes, hurry);
      compression.after(bytes, performance.now() - written);
      pace.keep(shared.requestsReceived);
    }
  } finally {
    pace.end();
  }
  workingSet?.send();
}

/** The PING behind the last page of the recorded working set, where one is recorded. */
class WorkingSetPing {
  readonly #context: PushContext;
  #due: boolean;

  constructor(context: PushContext) {
    this.#context = context;
    // All of it may have been sent ahead.
    this.#due = context.replay.length > 0 || Atomics.load(context.shared.control, WORD.awaited) > 0;
  }

  /** Sends it once the last page has been sent; before that, and afterwards, it does nothing. */
  send(): void {
    const { shared } = this.#context;
    if (!this.#due || Atomics.load(shared.control, WORD.awaited) > 0) return;
    this.#due = false;
    shared.mainLock.lock();
    try {
      sendCommand(this.#context, { kind: "ping", value: PING_WORKING_SET });
    } finally {
      shared.mainLock.unlock();
    }
  }
}

/**
 * Holds the push back until the destination says that the guest runs, or a moment has passed: bulk
 * data would only keep its processors and the link from the one thing that the guest waits for.
 */
export function letGuestStart(shared: SourceShared): void {
  const idle = new Int32Array(new SharedArrayBuffer(4));
  const deadline = performance.now() + START_GRACE_MS;
  const ours = Atomics.load(shared.control, WORD.peerFeatures) > 0;
  const sign = ours ? TIME.running : TIME.loaded;
  while (performance.now() < deadline && shared.times[sign] === 0 && !shared.finished.isSet) {
    Atomics.wait(idle, 0, 0, START_LOOK_MS);
  }
}

function limitChannel(channel: Channel): void {
  try {
    limitUnsent(channel.fd, UNSENT_BYTES_MAX);
  } catch {
    // Not a TCP socket: its buffer is small by itself.
  }
}

/** Sends the next pages of an order, up to a chunk of them, under the lock of the channel. */
export function pushChunk(
  context: PushContext,
  writer: RamWriter,
  order: PushOrder,
  { lock, sectionId }: PushLane,
): void {
  lock?.lock();
  try {
    writePages(context, writer, order, sectionId);
  } finally {
    lock?.unlock();
  }
}

/** Under a limit a chunk is what is sent at once, however low the limit is. */
function pagesPerChunk({ shared, settings }: PushContext): number {
  const long =
    Atomics.load(shared.control, WORD.urgentFd) >= 0 && settings.maxPostcopyBandwidth === 0;
  return long ? PAGES_PER_LONG_CHUNK : PAGES_PER_CHUNK;
}

function writePages(
  context: PushContext,
  writer: RamWriter,
  order: PushOrder,
  sectionId: number | undefined,
): void {
  const { shared } = context;
  const { counters } = shared;
  const flush = (): void => {
    context.channel.writeAll(writer.finish());
    const ahead = writer.kind === KIND.precopy;
    counters.add(ahead ? SOURCE.pagesNormalPrecopy : SOURCE.pagesPushed, writer.normal);
    counters.add(ahead ? SOURCE.pagesZeroPrecopy : SOURCE.pagesPushedZero, writer.zero);
    counters.add(SOURCE.pagesPacked, writer.packed);
    writer.begin(sectionId);
  };
  writer.begin(sectionId);
  for (let left = pagesPerChunk(context); left > 0 && order.find();) {
    const { block, hostPage } = order;
    const most = Math.ceil(left / targetPagesPerHostPage(block));
    const count = claimPages(shared, order, most);
    if (count > 0) {
      addHostPages(writer, block, hostPage, count, flush);
      noteSent(shared, block, hostPage, count);
    }
    left -= count * targetPagesPerHostPage(block);
  }
  if (writer.normal + writer.zero > 0) flush();
}

/** Claims up to `most` pages from where an order stands on, in its way, and leaves them. */
function claimPages(shared: SourceShared, order: PushOrder, most: number): number {
  const { block, hostPage } = order;
  const owed = shared.owed[block.index];
  const count = owed?.claimRun(hostPage, Math.min(owed.pages, hostPage + order.run(most))) ?? 0;
  order.next(Math.max(count, 1));
  return count;
}

/**
 * Ends the urgent channel with the EOS that QEMU 7.2 waits for, where no page is sent twice. Nothing
 * is owed any more, and the lock is taken, so no answer can come after it.
 */
export function finishUrgent(context: SourceContext): void {
  const { shared } = context;
  const fd = Atomics.load(shared.control, WORD.urgentFd);
  if (fd < 0) return;
  const channel = context.openChannel(fd);
  shared.urgentLock.lock();
  try {
    channel.writeAll(context.makeWriter().finishUrgent());
  } finally {
    shared.urgentLock.unlock();
  }
}
