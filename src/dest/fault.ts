/**
 * The fault thread (QEMU's `postcopy_ram_fault_thread`): turns the guest's page faults into page
 * requests, and owns the urgent channel on which requested pages come back.
 */
import { POLL, PollSet, closeDescriptor } from "../../syscalls/descriptor.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { Userfault } from "../../syscalls/userfaultfd.ts";
import type { UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { ChannelError } from "../channel/channel.ts";
import { Favour } from "../sync/favour.ts";
import { PostcopyError } from "../util/errors.ts";
import { checkPlaced } from "./place-failure.ts";
import type { ReturnPath } from "./return-path.ts";
import { HELD, requestTicks, WORD } from "./shared.ts";
import type { PageState } from "./shared.ts";
import { UrgentChannels } from "./urgent-channels.ts";
import type { UrgentOptions } from "./urgent-channels.ts";

/** What the fault thread works with. */
export interface FaultContext extends UrgentOptions {
  pages: PageState;
  /** Where the guest's memory lies; this thread changes it as the guest's owner does. */
  map: AddressMap;
  /** Where events are read into, if not anywhere. */
  eventsAt: number | undefined;
  returnPath: ReturnPath;
  /** Raised when this thread is to end. */
  stopFd: number;
}

/** How long the guest's own threads are left alone that keep pages from being placed. */
const EVENTS_PAUSE_MS = 0.05;

/** In the place of a fault whose address is no memory of the guest any more. */
const NOWHERE = -1;

export class FaultThread {
  readonly #context: FaultContext;
  readonly #userfault: Userfault | undefined;
  readonly #poll = new PollSet();
  readonly #urgent: UrgentChannels;
  readonly #favour: Favour;
  /** Faults taken from the kernel and not looked at yet. */
  readonly #faults: number[] = [];
  /** Those on pages that are in the page cache, and only not mapped. */
  readonly #minorFaults: number[] = [];
  readonly #idle = new Int32Array(new SharedArrayBuffer(4));
  /** When the last wait ended. A fault is counted from here on: before it is read. */
  #foundAt = 0;
  #zeros: Scratch | undefined;

  /** Makes the calling thread the fault thread. */
  constructor(context: FaultContext) {
    this.#context = context;
    this.#favour = new Favour(context.shared.control, WORD.favour);
    this.#favour.beFirst();
    const fd = Atomics.load(context.shared.control, WORD.userfaultFd);
    this.#userfault = fd < 0 ? undefined : new Userfault(fd, context.eventsAt);
    this.#poll.add(context.stopFd, POLL.POLLIN);
    this.#poll.add(fd, POLL.POLLIN);
    this.#urgent = new UrgentChannels(context, this.#poll);
  }

  /** Serves faults until the stop descriptor is raised. */
  run(): void {
    // One turn handles all that is ready.
    while (this.#turn()) this.#favour.turn();
    this.#urgent.close();
  }

  #turn(): boolean {
    this.#poll.wait(Infinity);
    this.#foundAt = monotonicNs();
    this.#urgent.serve();
    if (this.#poll.ready(1) !== 0) this.drainEvents();
    this.#requestFaults();
    return this.#poll.ready(0) === 0;
  }

  /**
   * Reads the events that wait. What the guest discarded is noted before any page can be placed
   * again, which is what the lock is for; the faults are looked at later.
   */
  drainEvents(): void {
    const { shared } = this.#context;
    this.#lockPlacing();
    try {
      this.#userfault?.readEvents((event) => this.#take(event));
    } finally {
      shared.placingLock.unlock();
    }
  }

  /**
   * What to do about EAGAIN: reads the events, and leaves the processor for a moment. The kernel says
   * EAGAIN until the thread of the guest has run that discarded something, which it cannot where this
   * one keeps its processor in real time.
   */
  makeWay(): void {
    this.drainEvents();
    Atomics.wait(this.#idle, 0, 0, EVENTS_PAUSE_MS);
  }

  /** To be called as often as a peer can make this thread work. */
  workedOn(): void {
    this.#favour.turn();
  }

  /**
   * Takes the lock from the listen thread. That may have been put off its processor with the lock
   * held, and have to wait for its next turn: so it is lent real time.
   */
  #lockPlacing(): void {
    const { placingLock, control } = this.#context.shared;
    if (placingLock.tryLock()) return;
    const holder = Atomics.load(control, WORD.listenThread);
    if (holder !== 0) this.#favour.lend(holder);
    placingLock.lockUrgent();
    if (holder !== 0) this.#favour.takeBack(holder, Atomics.load(control, WORD.listenNice));
  }

  #take(event: UserfaultEvent): void {
    switch (event.kind) {
      case "fault":
        this.#takeFault(event);
        break;
      case "remove":
        this.#noteRemoved(event.start, event.end);
        break;
      case "unmap":
        this.#noteRemoved(event.start, event.end);
        this.#context.map.unmap(event.start, event.end);
        this.#letGo(event.start, event.end);
        break;
      case "remap":
        this.#noteMoved(event.from, event.to, event.length);
        break;
      case "fork":
        closeDescriptor(event.fd);
        throw new PostcopyError("VMM_FORKED", "The VMM has forked while its memory was filled", {
          hint: "the child would see zeros: fork before the handover, or not at all",
        });
    }
  }

  #takeFault({ cause, address }: Extract<UserfaultEvent, { kind: "fault" }>): void {
    if (cause === "missing") this.#faults.push(address);
    else if (cause === "minor") this.#minorFaults.push(address);
    else {
      const where = `0x${address.toString(16)}`;
      throw new PostcopyError(
        "WRITE_PROTECTED",
        `The VMM has write-protected its page at ${where}, and lets others answer the fault there`,
        { hint: "who protects a page has to lift it: hand over without UFFDIO_WRITEPROTECT" },
      );
    }
  }

  /** Pages that are zero from now on, whatever the source still sends. */
  #noteRemoved(start: number, end: number): void {
    const { shared, pages, map } = this.#context;
    map.forEachPart(start, end, (block, offset, length) => {
      const first = offset / TARGET_PAGE_SIZE;
      const count = length / TARGET_PAGE_SIZE;
      const requestedAt = pages.requestedAt[block];
      pages.removed[block]?.setRange(first, count);
      let fresh = 0;
      let awaited = false;
      for (let page = first; page < first + count; page++) {
        if (pages.received[block]?.set(page)) fresh++;
        if (requestedAt && Atomics.exchange(requestedAt, page, 0) !== 0) awaited = true;
      }
      Atomics.sub(shared.control, WORD.missing, fresh);
      shared.counters.add(DEST.removedPages, count);
      // What was asked for will be dropped when it comes, so whoever waits for it must fault again.
      if (awaited) this.#userfault?.wake(map.addressOf(block, offset), length);
    });
    Atomics.store(shared.control, WORD.anyRemoved, 1);
  }

  /** What lay at `from` lies at `to`, in the place of what was there. */
  #noteMoved(from: number, to: number, length: number): void {
    this.#noteRemoved(to, to + length);
    this.#context.map.move(from, to, length);
    this.#letGo(from, from + length);
  }

  /**
   * [start, end) is no memory of the guest any more: pages that come are placed elsewhere or nowhere,
   * so whoever waits there has to look again at what there is.
   */
  #letGo(start: number, end: number): void {
    // In place: they may be gone through just now.
    for (const faults of [this.#faults, this.#minorFaults]) {
      for (const [index, address] of faults.entries()) {
        if (address >= start && address < end) faults[index] = NOWHERE;
      }
    }
    this.#userfault?.wake(start, end - start);
  }

  /** Asks the source for each faulting page that is not here and was not asked for yet. */
  #requestFaults(): void {
    // Placing may have to read events first: new faults may be added meanwhile.
    while (this.#faults.length + this.#minorFaults.length > 0) {
      for (const address of this.#faults) if (address !== NOWHERE) this.#requestFault(address);
      this.#faults.length = 0;
      for (const address of this.#minorFaults) if (address !== NOWHERE) this.#mapCached(address);
      this.#minorFaults.length = 0;
    }
    this.#sendRequests();
  }

  /**
   * Sends the requests that were added. Where they are held back they are not lost: each page notes
   * that it is awaited, and is asked for again when that is over.
   */
  #sendRequests(): void {
    const { returnPath, shared } = this.#context;
    try {
      returnPath.flushRequests(() => Atomics.load(shared.control, WORD.requestsHeld) !== HELD.no);
    } catch (error) {
      // The thread that reads the link finds out what is wrong with it.
      if (!(error instanceof ChannelError)) throw error;
    }
  }

  #requestFault(address: number): void {
    const { pages, shared, returnPath } = this.#context;
    shared.counters.add(DEST.faults, 1);
    const { block, start } = this.#hostPageAt(address);
    const page = start / TARGET_PAGE_SIZE;
    const received = pages.received[block.index];
    const requestedAt = pages.requestedAt[block.index];
    if (!received || !requestedAt) throw new Error("no page state");
    if (this.#isZero(block, page)) {
      this.#placeZero(block, start);
      return;
    }
    if (received.test(page)) {
      this.#wake(block, start);
      return;
    }
    if (Atomics.load(requestedAt, page) !== 0) return;
    Atomics.store(requestedAt, page, requestTicks(this.#foundAt));
    // The page may have come since; its placer looks at the request after it has set the bit.
    if (received.test(page)) {
      Atomics.store(requestedAt, page, 0);
      this.#wake(block, start);
      return;
    }
    shared.counters.add(DEST.faultsRemote, 1);
    shared.counters.add(DEST.pagesAwaited, targetPagesPerHostPage(block));
    returnPath.addRequest(block, start);
  }

  /** The host page that an address is in, by its block and where it begins in that. */
  #hostPageAt(address: number): { block: RamBlock; start: number } {
    const { blocks, map } = this.#context;
    const piece = map.pieceAt(address);
    const block = blocks[map.block(piece)];
    if (piece < 0 || block === undefined) {
      const where = `0x${address.toString(16)}`;
      throw new PostcopyError("UNKNOWN_FAULT", `A fault at ${where} is in no memory of the guest`, {
        hint: "the VMM has registered more than it has handed over",
      });
    }
    const offset = map.offset(piece) + address - map.address(piece);
    return { block, start: offset - (offset % block.pageSize) };
  }

  #wake({ index, pageSize }: RamBlock, start: number): void {
    const { map, shared } = this.#context;
    shared.counters.add(DEST.faultsLocal, 1);
    this.#userfault?.wake(map.addressOf(index, start), pageSize);
  }

  /**
   * Maps a page of a memory file that somebody has filled already, in whatever way. Waking alone would
   * only make it fault again. One that is in the file no more is missing when it faults again.
   */
  #mapCached(address: number): void {
    const { shared, map } = this.#context;
    shared.counters.add(DEST.faults, 1);
    const { block, start } = this.#hostPageAt(address);
    for (;;) {
      const target = map.addressOf(block.index, start);
      const result = this.#userfault?.continue(target, block.pageSize) ?? 0;
      if (result === -ERRNO.EAGAIN) {
        this.makeWay();
        // The events may have been about just this page.
        if (map.pieceOf(block.index, start) < 0) return;
        continue;
      }
      if (result > 0 || result === -ERRNO.EEXIST) this.#noteHere(block, start);
      else if (result !== -ERRNO.EFAULT && result !== -ERRNO.ENOENT) {
        checkPlaced(result, `UFFDIO_CONTINUE at 0x${address.toString(16)}`);
      }
      this.#wake(block, start);
      return;
    }
  }

  /** A host page is in place that nobody has sent. */
  #noteHere(block: RamBlock, start: number): void {
    const { pages, shared } = this.#context;
    const count = targetPagesPerHostPage(block);
    const fresh = pages.received[block.index]?.setRunCounting(start / TARGET_PAGE_SIZE, count) ?? 0;
    Atomics.sub(shared.control, WORD.missing, fresh);
  }

  /** Pages that are known to be zeros although they are not there: discarded, or never touched. */
  #isZero(block: RamBlock, page: number): boolean {
    const { removed, unpopulated } = this.#context.pages;
    return (
      removed[block.index]?.test(page) === true || unpopulated[block.index]?.test(page) === true
    );
  }

  /** A fault on a page that is zero: no business of the source's. EEXIST means that it is there. */
  #placeZero(block: RamBlock, start: number): void {
    const { map } = this.#context;
    for (;;) {
      const result = this.#zero(map.addressOf(block.index, start), block.pageSize);
      if (result === -ERRNO.EAGAIN) {
        this.makeWay();
        // The events may have been about just this page, which is nowhere now.
        if (map.pieceOf(block.index, start) < 0) return;
        continue;
      }
      // Another has placed it, or the VMM has taken it back without a word.
      if (result !== -ERRNO.EEXIST && result !== -ERRNO.ENOENT) {
        checkPlaced(result, `zeros at ${start} of ${block.name}`);
      }
      this.#wake(block, start);
      return;
    }
  }

  /** Zeros for one host page; UFFDIO_ZEROPAGE is not for hugetlbfs, so there they are copied. */
  #zero(target: number, pageSize: number): number {
    if (this.#userfault === undefined) return 0;
    if (pageSize === TARGET_PAGE_SIZE) return this.#userfault.zero(target, pageSize);
    if (this.#zeros === undefined || this.#zeros.bytes.length < pageSize) {
      this.#zeros = mapScratch(pageSize);
    }
    return this.#userfault.copy(target, this.#zeros.address, pageSize);
  }
}
