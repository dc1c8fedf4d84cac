/**
 * Postcopy at the source: what is owed is pushed in the background, and what is asked for is sent
 * at once. Both claim pages in the same bitmap, under the lock of the channel that will carry them,
 * so that no page is sent twice by chance: a QEMU destination pauses on a repeat.
 */
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { limitUnsent } from "../../syscalls/socket.ts";
import { PageBitmap } from "../ram/bitmap.ts";
import type { RamBlock } from "../ram/block.ts";
import { pagesBefore, targetPages, targetPagesPerHostPage } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PING_WORKING_SET } from "../stream/hello.ts";
import { SOURCE } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import { Bandwidth } from "./bandwidth.ts";
import type { SourceContext } from "./context.ts";
import { CopyChooser } from "./copy-chooser.ts";
import { followHostPages } from "./host-pages.ts";
import { NeighbourOrder } from "./neighbour-order.ts";
import { PushCompression } from "./push-compression.ts";
import { ListedOrder } from "./push-order.ts";
import { runsElsewhere } from "./receiver.ts";
import type { PushOrder } from "./push-order.ts";
import { PushPace } from "./push-pace.ts";
import type { RamWriter } from "./ram-writer.ts";
import { checkPeer, checkStop, RECORD_PAGES_MAX, stopAsked, TIME, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";
import { SpreadingOrder } from "./spreading-order.ts";
import { RAM_SECTION_ID, sendCommand } from "./stream.ts";

/** Target pages pushed between two looks at the lock: 128 KiB. */
const PAGES_PER_CHUNK = 32;
/** The same where requested pages go on a channel of their own, and the push may be as fast as it can. */
const PAGES_PER_LONG_CHUNK = 128;
/** What the guest's start may be delayed by for pages that it will need at once. */
const AHEAD_MS = 10;
/** How long the push waits for the guest to start; it then starts beside it. */
const START_GRACE_MS = 100;
const START_LOOK_MS = 0.2;
/** Unsent bytes that may lie before a requested page where there is one channel only. */
const UNSENT_BYTES_MAX = 128 * 1024;
/** Copied bytes of a requested huge page that go at once: the rest is copied while these travel. */
const REQUESTED_PIECE_BYTES = 128 * 1024;

/** Counts host pages that are being sent off the recorded working set, if they belong to it. */
function noteSent(shared: SourceShared, block: RamBlock, hostPage: number, count: number): void {
  Atomics.sub(shared.control, WORD.owed, count);
  if (Atomics.load(shared.control, WORD.awaited) === 0) return;
  const awaited = shared.awaited[block.index];
  for (let page = hostPage; page < hostPage + count; page++) {
    if (awaited?.claim(page)) Atomics.sub(shared.control, WORD.awaited, 1);
  }
}

/** Sends host pages, already claimed, as records of `writer` that are written by `flush`. */
function addHostPages(
  writer: RamWriter,
  block: RamBlock,
  hostPage: number,
  count: number,
  flush: () => void,
): void {
  const perHostPage = targetPagesPerHostPage(block);
  const end = Math.min(targetPages(block), (hostPage + count) * perHostPage);
  for (let page = hostPage * perHostPage; page < end;) {
    if (!writer.hasRoom) flush();
    page += writer.pages(block, page * TARGET_PAGE_SIZE, end - page);
  }
}

/**
 * Pushes everything that is owed, until nothing is: the recorded working set first, then what lies
 * around it, then out of the places of the last requests.
 */
export function pushOwed(context: SourceContext): void {
  const { guest, shared, settings, channel } = context;
  const urgent = Atomics.load(shared.control, WORD.urgentFd) >= 0;
  // With one channel requests wait for its lock, and so for whoever holds it.
  if (urgent) context.giveWay();
  else limitChannel(channel);
  const writer = context.makeWriter();
  writer.runs = Atomics.load(shared.control, WORD.pageRuns) === 1;
  const bandwidth = new Bandwidth(settings.maxPostcopyBandwidth);
  const recorded = new ListedOrder(context.replay, guest.blocks, shared);
  const around = new NeighbourOrder(context.replay, guest.blocks, shared);
  const rest = new SpreadingOrder(guest.blocks, shared);
  const orders: PushOrder[] = [recorded, around, rest];
  const chooser = new CopyChooser();
  const compression = new PushCompression(context, writer);
  const repeats = Atomics.load(shared.control, WORD.repeats) === 1;
  const pace = new PushPace(channel, urgent && !repeats);
  const hurry = (): boolean => {
    const done = Atomics.load(shared.control, WORD.owed) <= 0;
    return done || stopAsked(shared) || shared.finished.isSet;
  };
  const workingSet = new WorkingSetPing(context);
  try {
    while (Atomics.load(shared.control, WORD.owed) > 0) {
      checkStop(shared);
      workingSet.send();
      checkPeer(shared);
      rest.followRequests();
      const order = orders.find((each) => each.find());
      if (order === undefined) continue;
      writer.kind = order === recorded ? KIND.replay : KIND.push;
      const before = channel.bytesWritten;
      compression.before(order);
      chooser.before(writer);
      const pages = shared.counters.get(SOURCE.pagesPushed);
      pushChunk(context, writer, order);
      chooser.after(writer, shared.counters.get(SOURCE.pagesPushed) - pages);
      const bytes = channel.bytesWritten - before;
      shared.counters.add(SOURCE.bytesPostcopy, bytes);
      const written = performance.now();
      bandwidth.spend(bytes, hurry);
      compression.after(bytes, performance.now() - written);
      pace.keep(shared.counters.get(SOURCE.requestsReceived));
    }
  } finally {
    pace.end();
  }
  workingSet.send();
}

/**
 * Sends the head of the recorded working set while the guest cannot run yet, after the discards:
 * a page that is there before LISTEN costs the guest no fault at all. What is sent later races with
 * it, so this pays for as long as the wait is short beside the faults that it saves.
 */
export function sendAhead(context: SourceContext): void {
  const { guest, shared, replay, channel, settings } = context;
  if (replay.length === 0) return;
  if (!runsElsewhere(shared)) return;
  const order = new ListedOrder(replay, guest.blocks, shared);
  const writer = context.makeWriter();
  writer.kind = KIND.replay;
  const before = channel.bytesWritten;
  const deadline = performance.now() + AHEAD_MS;
  // It is a part of the push, whose limit holds for it as well.
  const rate = settings.maxPostcopyBandwidth > 0 ? settings.maxPostcopyBandwidth : Infinity;
  const end = before + (rate * AHEAD_MS) / 1000;
  while (performance.now() < deadline && channel.bytesWritten < end && order.find()) {
    checkStop(shared);
    checkPeer(shared);
    pushChunk(context, writer, order);
  }
  shared.counters.add(SOURCE.bytesPostcopy, channel.bytesWritten - before);
}

/**
 * Sends the pages that the device state points at: whoever loads it would wait for each of them. They
 * come before LISTEN, so at both ends they count as pages of precopy that are owed no more.
 */
export function sendDevicePages(context: SourceContext): void {
  const { guest, shared, channel } = context;
  const pages = guest.devicePages?.();
  if (pages === undefined) return;
  const { counters } = shared;
  const bytes = channel.bytesWritten;
  const before = precopyPages(shared);
  const order = new ListedOrder(pages, guest.blocks, shared);
  const writer = context.makeWriter();
  writer.kind = KIND.precopy;
  while (order.find()) pushChunk(context, writer, order);
  counters.add(SOURCE.owedPages, before - precopyPages(shared));
  counters.add(SOURCE.bytesPrecopy, channel.bytesWritten - bytes);
}

function precopyPages({ counters }: SourceShared): number {
  return counters.get(SOURCE.pagesNormalPrecopy) + counters.get(SOURCE.pagesZeroPrecopy);
}

/** The PING behind the last page of the recorded working set, where one is recorded. */
class WorkingSetPing {
  readonly #context: SourceContext;
  #due: boolean;

  constructor(context: SourceContext) {
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

/** Sends the next pages of an order, up to a chunk of them, under the lock of the main channel. */
function pushChunk(context: SourceContext, writer: RamWriter, order: PushOrder): void {
  context.shared.mainLock.lock();
  try {
    writePages(context, writer, order);
  } finally {
    context.shared.mainLock.unlock();
  }
}

function writePages(context: SourceContext, writer: RamWriter, order: PushOrder): void {
  const { shared } = context;
  const { counters } = shared;
  const flush = (): void => {
    context.channel.writeAll(writer.finish());
    const ahead = writer.kind === KIND.precopy;
    counters.add(ahead ? SOURCE.pagesNormalPrecopy : SOURCE.pagesPushed, writer.normal);
    counters.add(ahead ? SOURCE.pagesZeroPrecopy : SOURCE.pagesPushedZero, writer.zero);
    counters.add(SOURCE.pagesPacked, writer.packed);
    writer.begin(RAM_SECTION_ID);
  };
  writer.begin(RAM_SECTION_ID);
  // Under a limit a chunk is what is sent at once, however low the limit is.
  const long =
    Atomics.load(shared.control, WORD.urgentFd) >= 0 && context.settings.maxPostcopyBandwidth === 0;
  for (let left = long ? PAGES_PER_LONG_CHUNK : PAGES_PER_CHUNK; left > 0 && order.find();) {
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

/** Answers the page requests of one link; owned by the thread that reads them. */
export class RequestServer {
  readonly #blocks: readonly RamBlock[];
  readonly #shared: SourceShared;
  readonly #writer: RamWriter;
  readonly #main: Channel;
  readonly #openUrgent: (fd: number) => Channel;
  #urgent: Channel | undefined;
  /** One bit a host page, by block: those that were sent once more over this link. */
  readonly #repeated: readonly PageBitmap[];

  constructor(
    context: Pick<SourceContext, "shared" | "makeWriter" | "channel" | "openChannel">,
    blocks: readonly RamBlock[],
  ) {
    this.#blocks = blocks;
    this.#shared = context.shared;
    this.#writer = context.makeWriter();
    this.#writer.kind = KIND.request;
    this.#writer.pieceBytes = REQUESTED_PIECE_BYTES;
    this.#main = context.channel;
    this.#openUrgent = context.openChannel;
    // Room for the smallest host pages: which the guest has may be chosen later.
    this.#repeated = blocks.map((block) => new PageBitmap(targetPages(block)));
  }

  /**
   * Sends those host pages of [start, start + length) that are still owed, on the urgent channel
   * if there is one. Returns how many host pages that were.
   */
  serve(block: RamBlock, start: number, length: number): number {
    const urgentFd = Atomics.load(this.#shared.control, WORD.urgentFd);
    if (urgentFd >= 0 && this.#urgent === undefined) this.#urgent = this.#openUrgent(urgentFd);
    const channel = this.#urgent ?? this.#main;
    const lock = this.#urgent === undefined ? this.#shared.mainLock : this.#shared.urgentLock;
    const sectionId = this.#urgent === undefined ? RAM_SECTION_ID : undefined;
    lock.lockUrgent();
    try {
      followHostPages(this.#shared, this.#blocks);
      const served = this.#send(block, start, length, channel, sectionId);
      if (served === 0 && this.#urgent !== undefined) this.#repeat(block, start, this.#urgent);
      return served;
    } finally {
      lock.unlock();
    }
  }

  #send(
    block: RamBlock,
    start: number,
    length: number,
    channel: Channel,
    sectionId: number | undefined,
  ): number {
    const { counters } = this.#shared;
    const owed = this.#shared.owed[block.index];
    const writer = this.#writer;
    this.#setWay(block);
    const before = channel.bytesWritten;
    const flush = (): void => {
      channel.writeAll(writer.finish());
      counters.add(SOURCE.pagesRequested, writer.normal);
      counters.add(SOURCE.pagesRequestedZero, writer.zero);
      writer.begin(sectionId);
    };
    writer.begin(sectionId);
    const first = start / block.pageSize;
    const end = Math.ceil((start + length) / block.pageSize);
    let served = 0;
    for (let hostPage = first; hostPage < end; hostPage++) {
      if (!owed?.claim(hostPage)) continue;
      addHostPages(writer, block, hostPage, 1, flush);
      noteSent(this.#shared, block, hostPage, 1);
      served++;
    }
    if (writer.normal + writer.zero > 0) flush();
    counters.add(SOURCE.bytesRequested, channel.bytesWritten - before);
    const pagesAhead = pagesBefore(this.#blocks, block);
    this.#record(pagesAhead + first * targetPagesPerHostPage(block));
    if (served > 0) {
      const next = pagesAhead + end * targetPagesPerHostPage(block);
      Atomics.store(this.#shared.control, WORD.pushHint, next);
    }
    return served;
  }

  /**
   * Sends a page that has been sent before, where the peer takes one: it is under way among the push,
   * behind all that was pushed before it. Once is enough, however often it is asked for.
   */
  #repeat(block: RamBlock, start: number, channel: Channel): void {
    const { control, counters } = this.#shared;
    if (Atomics.load(control, WORD.repeats) === 0) return;
    const hostPage = start / block.pageSize;
    if (this.#repeated[block.index]?.set(hostPage) !== true) return;
    const writer = this.#writer;
    this.#setWay(block);
    const before = channel.bytesWritten;
    const flush = (): void => {
      channel.writeAll(writer.finish());
      counters.add(SOURCE.pagesRepeated, writer.normal + writer.zero);
      writer.begin(undefined);
    };
    writer.begin(undefined);
    try {
      addHostPages(writer, block, hostPage, 1, flush);
      if (writer.normal + writer.zero > 0) flush();
    } catch (error) {
      // The page has come meanwhile, and it was the last: the peer is done.
      if (error instanceof ChannelError && Atomics.load(control, WORD.ended) === 1) return;
      throw error;
    }
    counters.add(SOURCE.bytesRequested, channel.bytesWritten - before);
  }

  /** A small page is copied into its one record; of a huge one the kernel takes runs where they lie. */
  #setWay({ pageSize }: RamBlock): void {
    const writer = this.#writer;
    writer.runs = Atomics.load(this.#shared.control, WORD.pageRuns) === 1;
    writer.copying = pageSize === TARGET_PAGE_SIZE || !writer.canGather;
  }

  /** Notes which page was asked for: what a guest touches first it touches first again. */
  #record(page: number): void {
    const { control, firstRequests } = this.#shared;
    const recorded = Atomics.load(control, WORD.recorded);
    if (recorded === RECORD_PAGES_MAX) return;
    firstRequests[recorded] = page;
    Atomics.store(control, WORD.recorded, recorded + 1);
  }
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
