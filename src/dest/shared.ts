/**
 * What the threads of the destination share. The control part is made before anything arrives; the
 * part that depends on the guest's memory is made when the list of RAM blocks has been read.
 */
import { PageBitmap } from "../ram/bitmap.ts";
import type { RamBlock } from "../ram/block.ts";
import { targetPages } from "../ram/block.ts";
import type { SharedBytes } from "../ram/shared-bytes.ts";
import { DEST_COUNTERS, sumOf } from "../report/counters.ts";
import type { DestCounters, DestCounts } from "../report/counters.ts";
import { Histogram } from "../report/histogram.ts";
import { SharedEvent } from "../sync/event.ts";
import { Mutex } from "../sync/mutex.ts";
import { Semaphore } from "../sync/semaphore.ts";
import { PUSH_CHANNELS_MAX } from "../stream/further-channel.ts";
import { createPlacingLocks, PlacingLocks } from "./placing-locks.ts";
import type { PlacingLocksData } from "./placing-locks.ts";

/** Words of the control block. */
export const WORD = {
  /** 1: give up as soon as possible; waits in system calls are ended by the stop descriptor. */
  stop: 0,
  /** Descriptor of the userfaultfd, -1 for a guest that is stored. */
  userfaultFd: 1,
  /** Target pages that have not arrived since LISTEN. */
  missing: 2,
  /** 1 once the guest has discarded a page during postcopy: placing must look. */
  anyRemoved: 3,
  /** 1 once the source has said that requested pages come on an urgent channel. */
  urgentChosen: 4,
  /** 1 once that channel has ended with EOS, as it does where no page is sent once more. */
  urgentEnded: 5,
  /** 1 once a thread failed: who waits for it gives up. */
  failed: 6,
  /** The token (u32) by which the urgent channel is known (stream/hello.ts). */
  urgentToken: 7,
  /** Who runs the guest (FATE of refusal.ts). */
  fate: 8,
  /** 1 once the source has opened the return path. */
  returnPathOpen: 9,
  /** 1 once the package is here as a whole: the source then waits for what becomes of the guest. */
  packageWhole: 10,
  /** 1 once no more pages come on multifd channels. */
  multifdEnded: 11,
  /** While page requests are held back, why (HELD): they are sent when that is over. */
  requestsHeld: 12,
  /** 1 once the source has chosen to send page runs. */
  pageRuns: 13,
  /** 1 once it has chosen that it may compress them. */
  packedRuns: 14,
  /** How the fault thread is scheduled (FAVOURS of sync/favour.ts). */
  favour: 15,
  /** 1 once the listen thread is at work: pages that come on further channels may be placed. */
  listening: 16,
  /** Push channels that the source has opened beside the main one, and that are still to be found. */
  pushAwaited: 17,
  /** Those that were found and have not ended. */
  pushOpen: 18,
  /** 1 once one of them broke: its pages are lost with it. */
  pushLost: 19,
  /** 1 once nobody waits for one any more: the link broke. */
  pushOver: 20,
  /** 1 once the main channel has ended: whatever is under way on others comes now. */
  mainEnded: 21,
  /** Channels that the push comes on, the main one among them. */
  pushChannels: 22,
  /** 1 once it is known which guest it is, and its identity, in four words (identity.ts). */
  identityKnown: 23,
  identity: 24,
  /** 1 once pages of this guest may have been placed: from then on it is this one for good. */
  identityBound: 28,
  /** How often the fault thread has found faults, modulo 2^32. */
  faultsFound: 29,
} as const;
const WORDS = 32;

/** Values of WORD.requestsHeld. */
export const HELD = {
  no: 0,
  /** There is no link to send them on. */
  noLink: 1,
  /** A VMM runs, and the source is not at LISTEN yet. */
  untilListen: 2,
} as const;

/** Numbers of the reader's position, as the incoming thread hands it to the listen thread. */
const POSITION_NUMBERS = 5;

/** Shared memory that exists from the start. */
export interface DestSharedData {
  control: SharedArrayBuffer;
  /** By push channel; the main one's is that of every other thread too. */
  counters: SharedArrayBuffer[];
  position: SharedArrayBuffer;
  returnPathLock: SharedArrayBuffer;
  placingLocks: PlacingLocksData;
  listenThreadSem: SharedArrayBuffer;
  faultThreadSem: SharedArrayBuffer;
  faultThreadDone: SharedArrayBuffer;
  mainThreadLoadEvent: SharedArrayBuffer;
  listenStart: SharedArrayBuffer;
  faultStart: SharedArrayBuffer;
  listenDone: SharedArrayBuffer;
  multifdFlush: SharedArrayBuffer;
  multifdSettled: SharedArrayBuffer;
  faultTimes: SharedArrayBuffer;
  /** By push channel. */
  pushTimes: SharedArrayBuffer[];
  moved: SharedArrayBuffer | undefined;
}

export class DestShared {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly counters: DestCounters;
  readonly position: Float64Array<SharedArrayBuffer>;
  /** Held while writing on the return path. */
  readonly returnPathLock: Mutex;
  /** All of them are held while userfault events are read. */
  readonly placingLocks: PlacingLocks;
  /**
   * This channel's one of them, held while pages are placed that come on it. The thread that reads the
   * events places without it.
   */
  readonly placingLock: Mutex;
  /** The listen thread is at work, and takes the stream over as soon as it is there. */
  readonly listenThreadSem: Semaphore;
  /** The fault thread is ready for faults: memory may be registered. */
  readonly faultThreadSem: Semaphore;
  /** The fault thread has ended: nobody reads the userfaultfd any more. */
  readonly faultThreadDone: Semaphore;
  /** The device state has been loaded and the guest started: the listen thread may clean up. */
  readonly mainThreadLoadEvent: SharedEvent;
  /** Posted by the incoming thread when the stream is the listen thread's. */
  readonly listenStart: Semaphore;
  /** Posted by the incoming thread when the fault thread is to start. */
  readonly faultStart: Semaphore;
  /** The listen thread is done: every page is in place and the userfaultfd is closed. */
  readonly listenDone: Semaphore;
  /** Posted by the incoming thread at each flush of the multifd channels. */
  readonly multifdFlush: Semaphore;
  /** Posted by the multifd thread when all that was sent before a flush is stored. */
  readonly multifdSettled: Semaphore;
  /** Latencies of remote faults by the thread that placed the page, in nanoseconds. */
  readonly faultTimes: Histogram;
  /** Of pages that came on this push channel. */
  readonly listenTimes: Histogram;
  /** Which pages came, where somebody wants to see it (report/moved-pages.ts). */
  readonly moved: SharedArrayBuffer | undefined;

  /** `channel` is the push channel that the calling thread reads; 0 is the main one. */
  constructor(data: DestSharedData, channel = 0) {
    const [counters, times] = [data.counters[channel], data.pushTimes[channel]];
    if (counters === undefined || times === undefined) throw new RangeError("no such channel");
    this.control = new Int32Array(data.control);
    this.counters = DEST_COUNTERS.attach(counters);
    this.position = new Float64Array(data.position);
    this.returnPathLock = new Mutex(data.returnPathLock);
    this.placingLocks = new PlacingLocks(data.placingLocks);
    this.placingLock = this.placingLocks.of(channel);
    this.listenThreadSem = new Semaphore(data.listenThreadSem);
    this.faultThreadSem = new Semaphore(data.faultThreadSem);
    this.faultThreadDone = new Semaphore(data.faultThreadDone);
    this.mainThreadLoadEvent = new SharedEvent(data.mainThreadLoadEvent);
    this.listenStart = new Semaphore(data.listenStart);
    this.faultStart = new Semaphore(data.faultStart);
    this.listenDone = new Semaphore(data.listenDone);
    this.multifdFlush = new Semaphore(data.multifdFlush);
    this.multifdSettled = new Semaphore(data.multifdSettled);
    this.faultTimes = new Histogram(data.faultTimes);
    this.listenTimes = new Histogram(times);
    this.moved = data.moved;
  }
}

/** Makes the shared memory of one incoming migration, in which pages are counted into `moved`. */
export function createDestShared(moved?: SharedArrayBuffer): DestSharedData {
  const control = new SharedArrayBuffer(WORDS * 4);
  const words = new Int32Array(control);
  words[WORD.userfaultFd] = -1;
  words[WORD.pushChannels] = 1;
  return {
    control,
    counters: byChannel(() => DEST_COUNTERS.create().shared),
    position: new SharedArrayBuffer(POSITION_NUMBERS * 8),
    returnPathLock: new Mutex().shared,
    placingLocks: createPlacingLocks(),
    listenThreadSem: new Semaphore().shared,
    faultThreadSem: new Semaphore().shared,
    faultThreadDone: new Semaphore().shared,
    mainThreadLoadEvent: new SharedEvent().shared,
    listenStart: new Semaphore().shared,
    faultStart: new Semaphore().shared,
    listenDone: new Semaphore().shared,
    multifdFlush: new Semaphore().shared,
    multifdSettled: new Semaphore().shared,
    faultTimes: new Histogram().shared,
    pushTimes: byChannel(() => new Histogram().shared),
    moved,
  };
}

function byChannel<Item>(make: () => Item): Item[] {
  return Array.from({ length: PUSH_CHANNELS_MAX }, make);
}

/** What all push channels have counted together. */
export function destCountsOf({ counters }: DestSharedData): DestCounts {
  return sumOf(counters.map((shared) => DEST_COUNTERS.attach(shared)));
}

/** Latencies of all remote faults, in nanoseconds. */
export function faultTimesOf({ faultTimes, pushTimes }: DestSharedData): Histogram {
  const times = new Histogram();
  for (const shared of [faultTimes, ...pushTimes]) times.merge(new Histogram(shared));
  return times;
}

/** Per-page state of the guest's memory, by block. */
export interface PageStateData {
  /** Target pages that are in place, or that the guest discarded since. */
  received: SharedBytes[];
  /** Target pages that the guest discarded during postcopy: zero for ever, whatever arrives. */
  removed: SharedBytes[];
  /** Target pages that came as zeros and were never touched here: a fault on one is no request. */
  unpopulated: SharedBytes[];
  /** When a page was asked for (ticks of `requestTicks`), 0 if it is not awaited. */
  requestedAt: SharedArrayBuffer[];
}

/** The same, attached to. */
export interface PageState {
  received: PageBitmap[];
  removed: PageBitmap[];
  unpopulated: PageBitmap[];
  requestedAt: Int32Array<SharedArrayBuffer>[];
}

/** Makes the page state for blocks whose list has just arrived, but for what lies elsewhere. */
export function createPageState(
  blocks: readonly RamBlock[],
  kept: Partial<PageStateData> = {},
): PageStateData {
  return {
    received: blocks.map((block) => new PageBitmap(targetPages(block)).shared),
    removed: blocks.map((block) => new PageBitmap(targetPages(block)).shared),
    unpopulated: blocks.map((block) => new PageBitmap(targetPages(block)).shared),
    requestedAt: blocks.map((block) => new SharedArrayBuffer(targetPages(block) * 4)),
    ...kept,
  };
}

export function attachPageState(data: PageStateData, blocks: readonly RamBlock[]): PageState {
  return {
    received: blocks.map((block, i) => new PageBitmap(targetPages(block), data.received[i])),
    removed: blocks.map((block, i) => new PageBitmap(targetPages(block), data.removed[i])),
    unpopulated: blocks.map((block, i) => new PageBitmap(targetPages(block), data.unpopulated[i])),
    requestedAt: data.requestedAt.map((shared) => new Int32Array(shared)),
  };
}

/** Length of a tick in nanoseconds: 32 bits of them last for seven minutes. */
const TICK_NS = 100;
/** A request that has waited for longer looks as if it had waited for so much less. */
export const TICKS_PERIOD_NS = TICK_NS * 2 ** 32;

/** A time of the monotonic clock as the non-zero ticks that `requestedAt` holds. */
export function requestTicks(nowNs: number): number {
  const ticks = Math.floor(nowNs / TICK_NS) | 0;
  return ticks === 0 ? -1 : ticks;
}

/** Nanoseconds from a request to now, modulo TICKS_PERIOD_NS. */
export function ticksSince(ticks: number, nowNs: number): number {
  return ((Math.floor(nowNs / TICK_NS) - ticks) >>> 0) * TICK_NS;
}
