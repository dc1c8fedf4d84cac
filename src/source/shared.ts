/**
 * What the threads of the source share. Main makes it, every worker attaches to it; nothing in it
 * is ever replaced while they run.
 */
import { PageBitmap } from "../ram/bitmap.ts";
import type { RamBlock } from "../ram/block.ts";
import { blockOfPage, hostPageOf, targetPages } from "../ram/block.ts";
import { SOURCE, SOURCE_COUNTERS, sumOf } from "../report/counters.ts";
import type { SourceCounters, SourceCounts } from "../report/counters.ts";
import { Histogram } from "../report/histogram.ts";
import { PUSH_CHANNELS_MAX } from "../stream/further-channel.ts";
import { SharedEvent } from "../sync/event.ts";
import { Mutex } from "../sync/mutex.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import { SHUT_STATUS } from "../stream/return-path.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";

/** Words of the control block. */
export const WORD = {
  /** 1: switch over as soon as possible (SIGUSR1, `switchover` on stdin). */
  switchoverNow: 0,
  /** Descriptor of the urgent channel, -1 while there is none. */
  urgentFd: 1,
  /** Target page (counted over all blocks) of the last request: the push spreads out from there. */
  pushHint: 2,
  /** Host pages that are still owed to the destination. */
  owed: 3,
  /** Features of the peer, -1 until it answered, 0 for a QEMU. */
  peerFeatures: 4,
  /** Status of SHUT, -1 until it came. */
  shutStatus: 5,
  /** 1 from the moment on that page requests may be answered. */
  serving: 6,
  /** 1: give up as soon as possible (Ctrl-C); waits are ended by the stop descriptor. */
  stop: 7,
  /** Whether the point of no return has been passed (commitment.ts). */
  commitment: 8,
  /** 1 once everything has been sent: only then SHUT may say that all is well. */
  ended: 9,
  /** Host pages of the recorded working set that have not been sent; 0 where none is recorded. */
  awaited: 10,
  /** Page requests noted in `firstRequests`. */
  recorded: 11,
  /** Received bitmaps that a recovery still waits for. */
  bitmapsAwaited: 12,
  /** 1 once RESUME was sent and not answered yet. */
  resumeAwaited: 13,
  /** 1 once both ends have chosen page runs, for this connection. */
  pageRuns: 14,
  /** 1 once they have chosen that runs may be compressed. */
  packedRuns: 15,
  /** The pass of work ahead of the switchover that the destination has done (ahead.ts). */
  aheadPass: 16,
  /** How the return-path thread is scheduled (FAVOURS of sync/favour.ts). */
  favour: 17,
  /** 1: the destination takes a page that it was sent before (FEATURE.repeats). */
  repeats: 18,
  /** 1: device state may be sent ahead of the switchover (FEATURE.devicesAhead). */
  devicesAhead: 19,
  /** Bytes of a host page of a guest that lies in files (host-pages.ts); 0: as they were saved. */
  hostPageBytes: 20,
  /** What further push channels are to do (PUSHING). */
  pushing: 21,
  /** Push channels beside the main one whose threads have not ended. */
  pushOpen: 22,
  /** 1 once one of them broke: its pages are lost with it. */
  pushLost: 23,
  /** 1: the destination has been told which guest it is. */
  identityTold: 24,
  /** What it has answered to that (IDENTITY_ANSWER), over this connection. */
  identityAnswer: 25,
} as const;
const WORDS = 32;

/** Values of WORD.pushing. */
export const PUSHING = { notYet: 0, now: 1, over: 2 } as const;

/** Values of WORD.identityAnswer. */
export const IDENTITY_ANSWER = {
  /** It is not asked, as the link is the first one. */
  none: 0,
  /** The echo: it knows of no guest, or nothing of identities. */
  unknown: 1,
  same: 2,
  other: 3,
  /** It is yet to answer, over a link that is to go on: until then it may be anybody's. */
  awaited: 4,
} as const;

/** Most page requests whose order is recorded: 1 GiB of pages of 4 KiB. */
export const RECORD_PAGES_MAX = 262_144;

/** Times on the monotonic clock in nanoseconds, 0 until known. */
export const TIME = {
  /** The last instruction of the guest at the source. */
  stopped: 0,
  /** The package has been handed to the kernel in full. */
  packageSent: 1,
  /** PONG of the PING at the end of the package: the device state is loaded. */
  loaded: 2,
  /** Our own destination said that the guest runs. */
  running: 3,
  /** PING sent and PONG received of the hello: a round trip. */
  helloSent: 4,
  helloAnswered: 5,
  /** PONG of PING_WORKING_SET: the recorded working set is in place. */
  workingSet: 6,
} as const;
const TIMES = 8;

/** Shared memory as it crosses to a worker. */
export interface SourceSharedData {
  control: SharedArrayBuffer;
  times: SharedArrayBuffer;
  /** By push channel; the main one's is that of every other thread too. */
  counters: SharedArrayBuffer[];
  requestTimes: SharedArrayBuffer;
  mainLock: SharedArrayBuffer;
  urgentLock: SharedArrayBuffer;
  peerKnown: SharedArrayBuffer;
  finished: SharedArrayBuffer;
  bitmapsKnown: SharedArrayBuffer;
  resumed: SharedArrayBuffer;
  dirty: SharedArrayBuffer[];
  owed: SharedArrayBuffer[];
  awaited: SharedArrayBuffer[];
  firstRequests: SharedArrayBuffer;
  moved: SharedArrayBuffer | undefined;
}

/** The same, attached to. */
export class SourceShared {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly times: Float64Array<SharedArrayBuffer>;
  readonly counters: SourceCounters;
  /** Nanoseconds from reading a page request to having written its page. */
  readonly requestTimes: Histogram;
  /** Held while writing on the main channel. */
  readonly mainLock: Mutex;
  /** Held while writing on the urgent channel. */
  readonly urgentLock: Mutex;
  /** Set when the peer has answered the hello (WORD.peerFeatures). */
  readonly peerKnown: SharedEvent;
  /** Set when the return path ended: SHUT came (WORD.shutStatus), or the link broke. */
  readonly finished: SharedEvent;
  /** Set when a recovery has every received bitmap: `owed` is what the destination lacks. */
  readonly bitmapsKnown: SharedEvent;
  /** Set when the destination has answered RESUME. */
  readonly resumed: SharedEvent;
  /** One bit a target page, by block: to be sent in precopy. */
  readonly dirty: PageBitmap[];
  /** One bit a host page, by block: owed to the destination after the switchover. */
  readonly owed: PageBitmap[];
  /** One bit a host page, by block: of the recorded working set, and not sent yet. */
  readonly awaited: PageBitmap[];
  /**
   * Target pages, counted over all blocks, in the order in which they were asked for; WORD.recorded
   * of them. The return-path thread writes it.
   */
  readonly firstRequests: Uint32Array<SharedArrayBuffer>;
  /** Which pages went, where somebody wants to see it (report/moved-pages.ts). */
  readonly moved: SharedArrayBuffer | undefined;
  readonly #mainCounters: SourceCounts;

  /** `channel` is the push channel that the calling thread writes; 0 is the main one. */
  constructor(data: SourceSharedData, blocks: readonly RamBlock[], channel = 0) {
    const [counters, mainCounters] = [data.counters[channel], data.counters[0]];
    if (counters === undefined || mainCounters === undefined)
      throw new RangeError(`there is no channel ${channel}`);
    this.moved = data.moved;
    this.control = new Int32Array(data.control);
    this.times = new Float64Array(data.times);
    this.counters = SOURCE_COUNTERS.attach(counters);
    this.#mainCounters = SOURCE_COUNTERS.attach(mainCounters);
    this.requestTimes = new Histogram(data.requestTimes);
    this.mainLock = new Mutex(data.mainLock);
    this.urgentLock = new Mutex(data.urgentLock);
    this.peerKnown = new SharedEvent(data.peerKnown);
    this.finished = new SharedEvent(data.finished);
    this.bitmapsKnown = new SharedEvent(data.bitmapsKnown);
    this.resumed = new SharedEvent(data.resumed);
    this.dirty = blocks.map((block, i) => new PageBitmap(targetPages(block), data.dirty[i]));
    this.owed = blocks.map((block, i) => new PageBitmap(hostPages(block), data.owed[i]));
    this.awaited = blocks.map((block, i) => new PageBitmap(hostPages(block), data.awaited[i]));
    this.firstRequests = new Uint32Array(data.firstRequests);
  }

  /** Page requests that have come, which the return-path thread counts. */
  get requestsReceived(): number {
    return this.#mainCounters.get(SOURCE.requestsReceived);
  }

  /** Notes which target pages, counted over all blocks, are to be told of when all are there. */
  awaitPages(pages: Uint32Array, blocks: readonly RamBlock[]): void {
    let count = 0;
    for (const page of pages) {
      const block = blockOfPage(blocks, page);
      if (this.awaited[block.index]?.set(hostPageOf(blocks, block, page))) count++;
    }
    Atomics.store(this.control, WORD.awaited, count);
  }

  /** Target pages that were asked for, counted over all blocks, in the order of the requests. */
  requested(): Uint32Array {
    return this.firstRequests.slice(0, Atomics.load(this.control, WORD.recorded));
  }
}

/** What all push channels have counted together. */
export function sourceCountsOf({ counters }: SourceSharedData): SourceCounts {
  return sumOf(counters.map((shared) => SOURCE_COUNTERS.attach(shared)));
}

/** Whether the operator asked to give up. */
export function stopAsked(shared: SourceShared): boolean {
  return Atomics.load(shared.control, WORD.stop) === 1;
}

/** @throws StoppedError when the operator asked to give up. */
export function checkStop(shared: SourceShared): void {
  if (stopAsked(shared)) throw new StoppedError();
}

/**
 * Looks whether the destination is still there, from a thread that only writes.
 * @throws PostcopyError of `refusalOf`, ChannelError PEER_CLOSED.
 */
export function checkPeer(shared: SourceShared): void {
  if (!shared.finished.isSet) return;
  const refusal = refusalOf(shared);
  if (refusal !== undefined) throw refusal;
  if (Atomics.load(shared.control, WORD.shutStatus) === 0) return;
  throw new ChannelError("PEER_CLOSED", "The destination went away");
}

/** The guest ran at the destination, and is no more: nobody waits there for the rest of it. */
export class GuestGoneError extends PostcopyError {
  /** `inVmm`: in a VMM, whose memory the destination filled. */
  constructor(inVmm: boolean) {
    if (inVmm) super("VMM_GONE", "The VMM whose memory the destination filled is no more");
    else super("GUEST_GONE", "The guest ran at the destination, which has given it up");
  }

  override get exitCode(): number {
    return EXIT.guestEnded;
  }
}

/** Code of `otherGuest`. */
export const OTHER_GUEST = "OTHER_GUEST";

/** Why the destination does not have the guest, if it has said so (SHUT with a status). */
export function refusalOf({ control }: SourceShared): PostcopyError | undefined {
  const status = Atomics.load(control, WORD.shutStatus);
  const answer = Atomics.load(control, WORD.identityAnswer);
  // It may close the link behind that without another word.
  if (answer === IDENTITY_ANSWER.other) return otherGuest();
  if (status <= 0) return undefined;
  if (status === SHUT_STATUS.guestGone) {
    if (answer === IDENTITY_ANSWER.awaited) return undefined;
    // Only who fills a VMM's memory says which host pages that has.
    return new GuestGoneError(Atomics.load(control, WORD.hostPageBytes) > 0);
  }
  return new PostcopyError("PEER_FAILED", "The destination refused the guest, or gave it up");
}

/** The destination has pages of another guest, and goes on waiting for that one. */
export function otherGuest(): PostcopyError {
  return new PostcopyError(OTHER_GUEST, "The destination waits for another guest", {
    hint: "only the guest that it has a part of goes on there, and from files only unchanged ones",
  });
}

/** Host pages of a block. */
export function hostPages(block: RamBlock): number {
  return Math.ceil(block.length / block.pageSize);
}

/** Shared memory that is written only where it is used costs nothing until then. */
const RECORD_BYTES = RECORD_PAGES_MAX * 4;

/** Makes the shared memory of one migration, in which pages are counted into `moved`. */
export function createSourceShared(
  blocks: readonly RamBlock[],
  moved?: SharedArrayBuffer,
): SourceSharedData {
  const control = new SharedArrayBuffer(WORDS * 4);
  const words = new Int32Array(control);
  words[WORD.urgentFd] = -1;
  words[WORD.pushHint] = -1;
  words[WORD.peerFeatures] = -1;
  words[WORD.shutStatus] = -1;
  return {
    control,
    times: new SharedArrayBuffer(TIMES * 8),
    counters: Array.from({ length: PUSH_CHANNELS_MAX }, () => SOURCE_COUNTERS.create().shared),
    requestTimes: new Histogram().shared,
    mainLock: new Mutex().shared,
    urgentLock: new Mutex().shared,
    peerKnown: new SharedEvent().shared,
    finished: new SharedEvent().shared,
    bitmapsKnown: new SharedEvent().shared,
    resumed: new SharedEvent().shared,
    dirty: blocks.map((block) => new PageBitmap(targetPages(block)).shared),
    // Room for the smallest host pages: the destination may have such.
    owed: blocks.map((block) => new PageBitmap(targetPages(block)).shared),
    awaited: blocks.map((block) => new PageBitmap(targetPages(block)).shared),
    firstRequests: new SharedArrayBuffer(RECORD_BYTES),
    moved,
  };
}
