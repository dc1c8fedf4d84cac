/**
 * The fault thread (QEMU's `postcopy_ram_fault_thread`): turns the guest's page faults into page
 * requests, and owns the urgent channel on which requested pages come back.
 */
import { POLL, PollSet } from "../../syscalls/descriptor.ts";
import { check } from "../../syscalls/error.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { Userfault } from "../../syscalls/userfaultfd.ts";
import type { UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { blockAt, targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { ChannelError } from "../channel/channel.ts";
import { Favour } from "../sync/favour.ts";
import { PostcopyError } from "../util/errors.ts";
import type { ReturnPath } from "./return-path.ts";
import { requestTicks, WORD } from "./shared.ts";
import type { PageState } from "./shared.ts";
import { UrgentChannels } from "./urgent-channels.ts";
import type { UrgentOptions } from "./urgent-channels.ts";

/** What the fault thread works with. */
export interface FaultContext extends UrgentOptions {
  pages: PageState;
  returnPath: ReturnPath;
  /** Raised when this thread is to end. */
  stopFd: number;
}

/** How long the guest's own threads are left alone that keep pages from being placed. */
const EVENTS_PAUSE_MS = 0.05;

export class FaultThread {
  readonly #context: FaultContext;
  readonly #userfault: Userfault | undefined;
  readonly #poll = new PollSet();
  readonly #urgent: UrgentChannels;
  readonly #favour: Favour;
  /** Faults taken from the kernel and not looked at yet. */
  readonly #faults: number[] = [];
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
    this.#userfault = fd < 0 ? undefined : new Userfault(fd);
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
        this.#faults.push(event.address);
        break;
      case "remove":
        this.#noteRemoved(event.start, event.end);
        break;
      default:
        throw new PostcopyError(
          "UNEXPECTED_EVENT",
          `The guest changed its address space (${event.kind}) during postcopy`,
        );
    }
  }

  #noteRemoved(start: number, end: number): void {
    const { shared, pages, blocks } = this.#context;
    for (const block of blocks) {
      const from = Math.max(start, block.address);
      const to = Math.min(end, block.address + block.length);
      if (from >= to) continue;
      const first = (from - block.address) / TARGET_PAGE_SIZE;
      const count = (to - from) / TARGET_PAGE_SIZE;
      const requestedAt = pages.requestedAt[block.index];
      pages.removed[block.index]?.setRange(first, count);
      let fresh = 0;
      let awaited = false;
      for (let page = first; page < first + count; page++) {
        if (pages.received[block.index]?.set(page)) fresh++;
        if (requestedAt && Atomics.exchange(requestedAt, page, 0) !== 0) awaited = true;
      }
      Atomics.sub(shared.control, WORD.missing, fresh);
      shared.counters.add(DEST.removedPages, count);
      // What was asked for will be dropped when it comes, so whoever waits for it must fault again.
      if (awaited) this.#userfault?.wake(from, to - from);
    }
    Atomics.store(shared.control, WORD.anyRemoved, 1);
  }

  /** Asks the source for each faulting page that is not here and was not asked for yet. */
  #requestFaults(): void {
    // Placing zeros may have to read events first: new faults may be added meanwhile.
    for (const address of this.#faults) this.#requestFault(address);
    this.#faults.length = 0;
    this.#sendRequests();
  }

  /**
   * Sends the requests that were added. Without a link they are not lost: each page notes that it is
   * awaited, and is asked for again over the next link.
   */
  #sendRequests(): void {
    const { returnPath, shared } = this.#context;
    try {
      returnPath.flushRequests(() => Atomics.load(shared.control, WORD.requestsHeld) === 1);
    } catch (error) {
      // The thread that reads the link finds out what is wrong with it.
      if (!(error instanceof ChannelError)) throw error;
    }
  }

  #requestFault(address: number): void {
    const { blocks, pages, shared, returnPath } = this.#context;
    shared.counters.add(DEST.faults, 1);
    const block = blockAt(blocks, address);
    if (block === undefined) throw new Error(`fault at ${address} outside of the guest`);
    const offset = address - block.address;
    const start = offset - (offset % block.pageSize);
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

  #wake(block: RamBlock, start: number): void {
    this.#context.shared.counters.add(DEST.faultsLocal, 1);
    this.#userfault?.wake(block.address + start, block.pageSize);
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
    const target = block.address + start;
    for (;;) {
      const result = this.#zero(target, block.pageSize);
      if (result === -ERRNO.EAGAIN) {
        this.makeWay();
        continue;
      }
      if (result !== -ERRNO.EEXIST) check("ioctl", result, `zeros at ${start} of ${block.name}`);
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
