/**
 * Placing pages into userfault memory, atomically, so that a vCPU that touches one sees all of it
 * or waits (QEMU's `postcopy_place_page`). Each thread that receives pages has a Placer.
 *
 * EEXIST means that the page is here already: its waiters are woken and it counts as done, it is
 * never overwritten. EAGAIN means that an event (a discard by the guest) must be read before any
 * page can be placed. A copy that stopped half-way is gone on with. A page that the guest has
 * discarded is zero for ever, whatever the source still sends.
 */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { enabledFeatures, Userfault } from "../../syscalls/userfaultfd.ts";
import type { AddressMap } from "../ram/address-map.ts";
import type { RamBlock } from "../ram/block.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import type { DestCounters } from "../report/counters.ts";
import type { Histogram } from "../report/histogram.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { GatheredPage, hostPageEnd } from "./gathered-page.ts";
import type { PageSink, ReceiveBuffer } from "./guest.ts";
import { checkPlaced, checkVmm, notRegistered } from "./place-failure.ts";
import { ticksSince, WORD } from "./shared.ts";
import type { DestShared, PageState } from "./shared.ts";

/** What came of placing, since the owner last looked and set them to 0. */
export interface PlaceCounts {
  /** EEXIST: the page was here already. */
  exists: number;
  /** EAGAIN: events had to be read first. */
  retries: number;
  /** Target pages that the guest had discarded, or has no memory for. */
  dropped: number;
}

export interface PlacerOptions {
  shared: DestShared;
  pages: PageState;
  /** Where the guest's memory lies. */
  map: AddressMap;
  /** It is the memory of a VMM, which may have unmapped a part of it without a word. */
  foreign: boolean;
  /** The channel's receive buffer. */
  buffer: ReceiveBuffer;
  /** Latencies of the remote faults that this placer ends. */
  times: Histogram;
  /**
   * This thread reads the events itself: none can be read while it places, so it waits for no lock
   * that bulk pages are placed under.
   */
  urgent: boolean;
  /** EAGAIN: reads the waiting events, or lets the thread do so that reads them. */
  drainEvents: () => void;
}

/**
 * Most bytes that one call places while the guest faults: the thread that finds out what it waits for needs
 * the lock for that. More at once is cheaper where nobody does.
 */
const PIECE_BYTES = 8 * TARGET_PAGE_SIZE;

/** The events without which memory may be gone from where it was. */
const GONE_EVENTS = UFFD.UFFD_FEATURE_EVENT_UNMAP | UFFD.UFFD_FEATURE_EVENT_REMAP;

export class Placer implements PageSink {
  readonly counts: PlaceCounts = { exists: 0, retries: 0, dropped: 0 };
  readonly #options: PlacerOptions;
  readonly #shared: DestShared;
  readonly #userfault: Userfault;
  readonly #gathered = new GatheredPage();
  /** Whether the VMM tells of all memory that it unmaps and moves. */
  #isHeard: boolean | undefined;
  /** WORD.faultsFound when last looked at. */
  #faultsFound = 0;

  constructor(options: PlacerOptions) {
    this.#options = options;
    this.#shared = options.shared;
    this.#userfault = new Userfault(Atomics.load(options.shared.control, WORD.userfaultFd));
  }

  pages(block: RamBlock, offset: number, at: number, count: number): void {
    if (block.pageSize === TARGET_PAGE_SIZE) {
      const source = this.#options.buffer.address + at;
      this.#place(block, offset, source, count * TARGET_PAGE_SIZE);
      return;
    }
    const { bytes } = this.#options.buffer;
    const end = offset + count * TARGET_PAGE_SIZE;
    for (let from = offset; from < end;) {
      const part = Math.min(end, hostPageEnd(block, from)) - from;
      const dataAt = at + from - offset;
      this.#gather(block, from, part, bytes.subarray(dataAt, dataAt + part));
      from += part;
    }
  }

  zeros(block: RamBlock, offset: number, count: number): void {
    if (block.pageSize === TARGET_PAGE_SIZE) {
      this.#place(block, offset, 0, count * TARGET_PAGE_SIZE);
      return;
    }
    const end = offset + count * TARGET_PAGE_SIZE;
    for (let from = offset; from < end;) {
      const part = Math.min(end, hostPageEnd(block, from)) - from;
      this.#gather(block, from, part, undefined);
      from += part;
    }
  }

  dropPart(): void {
    this.#gathered.drop();
  }

  /** Adds a part of a host page, zeros without data; it is placed when its last one is here. */
  #gather(block: RamBlock, offset: number, length: number, data: Uint8Array | undefined): void {
    const source = this.#gathered.add(block, offset, length, data);
    if (source === undefined) return;
    // UFFDIO_ZEROPAGE is not for hugetlbfs: its zeros are copied.
    this.#place(block, offset - (offset % block.pageSize), source, block.pageSize);
  }

  /** Places whole host pages; `source` 0 means zeros. */
  #place(block: RamBlock, offset: number, source: number, length: number): void {
    const lock = this.#options.urgent ? undefined : this.#shared.placingLock;
    // Zeros are placed by the hundred in that time.
    const most = lock !== undefined && source !== 0 && this.#hasFaulted() ? PIECE_BYTES : length;
    const piece = Math.max(most, block.pageSize);
    for (let done = 0; done < length;) {
      const from = source === 0 ? 0 : source + done;
      let step: number;
      lock?.lock();
      try {
        step = this.#step(block, offset + done, from, Math.min(piece, length - done));
      } finally {
        lock?.unlock();
      }
      done += step;
      if (step > 0) continue;
      this.counts.retries++;
      this.#options.drainEvents();
    }
  }

  /** Whether the guest has faulted since this was last asked. */
  #hasFaulted(): boolean {
    const found = Atomics.load(this.#shared.control, WORD.faultsFound);
    const before = this.#faultsFound;
    this.#faultsFound = found;
    return found !== before;
  }

  /** Places the first part of a range. Returns the bytes that are done; 0 after EAGAIN. */
  #step(block: RamBlock, offset: number, source: number, length: number): number {
    let part = length;
    if (Atomics.load(this.#shared.control, WORD.anyRemoved) === 1) {
      const removed = this.#options.pages.removed[block.index];
      const page = offset / TARGET_PAGE_SIZE;
      const end = page + length / TARGET_PAGE_SIZE;
      if (removed !== undefined) {
        if (removed.test(page)) {
          const keep = removed.nextClear(page, end);
          this.counts.dropped += keep - page;
          return (keep - page) * TARGET_PAGE_SIZE;
        }
        const next = removed.nextSet(page, end);
        if (next >= 0) part = (next - page) * TARGET_PAGE_SIZE;
      }
    }
    const { map, foreign } = this.#options;
    const piece = map.pieceOf(block.index, offset);
    // What lies nowhere counts as discarded, and was seen to above.
    if (piece < 0) throw new Error(`the page at ${offset} of ${block.name} lies nowhere`);
    const within = offset - map.offset(piece);
    part = Math.min(part, map.length(piece) - within);
    const target = map.address(piece) + within;
    let result = this.#attempt(target, source, part);
    if (result === -ERRNO.ENOENT && foreign) {
      result = this.#attemptAgain(target, source, block.pageSize);
    }
    if (result > 0) {
      this.#noteReceived(block, offset, result);
      return result;
    }
    if (result === -ERRNO.EAGAIN) return 0;
    if (result === -ERRNO.EEXIST) {
      this.counts.exists++;
      this.#noteReceived(block, offset, block.pageSize);
      this.#userfault.wake(target, block.pageSize);
      return block.pageSize;
    }
    if (result === -ERRNO.ENOENT && foreign && this.#isUnmapped(target, block.pageSize)) {
      this.counts.dropped += targetPagesPerHostPage(block);
      this.#noteReceived(block, offset, block.pageSize);
      this.#userfault.wake(target, block.pageSize);
      return block.pageSize;
    }
    if (result === -ERRNO.ENOENT && foreign) throw notRegistered(target, offset, block);
    checkPlaced(result, `UFFDIO_COPY, ${part} bytes at ${offset} of ${block.name}`);
    return part;
  }

  /**
   * A VMM's mappings may be smaller than its regions, and a range that is in two of them is in none: so
   * one page is tried. That may lie in a mapping which is moved just now: then the event is under way,
   * cannot be read by others while this thread places, and the kernel says EAGAIN when asked once more.
   */
  #attemptAgain(target: number, source: number, pageSize: number): number {
    const result = this.#attempt(target, source, pageSize);
    return result === -ERRNO.ENOENT ? this.#attempt(target, source, pageSize) : result;
  }

  /**
   * Whether the VMM has unmapped a page without a word, as it can where it has not asked for the events:
   * else the map had no such page by now. A page that is mapped and not registered it would read as
   * zeros. To register it finds out, and lets whoever touches it from now on wait instead.
   */
  #isUnmapped(target: number, pageSize: number): boolean {
    const { fd } = this.#userfault;
    this.#isHeard ??= ((enabledFeatures(fd) ?? 0) & GONE_EVENTS) === GONE_EVENTS;
    if (this.#isHeard) return false;
    const mode = UFFD.UFFDIO_REGISTER_MODE_MISSING;
    const result = this.#userfault.tryRegister(target, pageSize, mode);
    // Of a VMM that has ended, or of a mapping that may not be split; placing tells which.
    if (result === -ERRNO.ENOMEM) checkVmm(this.#userfault.zero(target, pageSize));
    return result === -ERRNO.EINVAL;
  }

  #attempt(target: number, source: number, length: number): number {
    if (source === 0) return this.#userfault.zero(target, length);
    return this.#userfault.copy(target, source, length);
  }

  /**
   * Notes pages as received, and ends the remote faults on them. The bit is set before the request
   * is looked at; the fault thread does it the other way round, so one of them sees the other.
   */
  #noteReceived(block: RamBlock, offset: number, length: number): void {
    const { pages } = this.#options;
    const received = pages.received[block.index];
    const requestedAt = pages.requestedAt[block.index];
    if (received === undefined || requestedAt === undefined) throw new Error("no page state");
    const first = offset / TARGET_PAGE_SIZE;
    const end = first + length / TARGET_PAGE_SIZE;
    const fresh = received.setRunCounting(first, end - first);
    for (let page = first; page < end; page++) {
      if (Atomics.load(requestedAt, page) !== 0) this.#endRequest(requestedAt, page);
    }
    Atomics.sub(this.#shared.control, WORD.missing, fresh);
  }

  #endRequest(requestedAt: Int32Array<SharedArrayBuffer>, page: number): void {
    const ticks = Atomics.exchange(requestedAt, page, 0);
    if (ticks !== 0) this.#options.times.record(ticksSince(ticks, monotonicNs()));
  }
}

/** Adds what a placer counted to the counters, and lets it begin anew. */
export function addPlaceCounts(counters: DestCounters, counts: PlaceCounts): void {
  counters.add(DEST.placeExists, counts.exists);
  counters.add(DEST.placeRetries, counts.retries);
  counters.add(DEST.pagesDropped, counts.dropped);
  counts.exists = 0;
  counts.retries = 0;
  counts.dropped = 0;
}
