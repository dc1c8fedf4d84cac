/**
 * The fault thread (QEMU's `postcopy_ram_fault_thread`): turns the guest's page faults into page
 * requests, and owns the urgent channel on which requested pages come back.
 */
import { POLL, PollSet } from "../../syscalls/descriptor.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { Userfault } from "../../syscalls/userfaultfd.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { targetPages, targetPagesPerHostPage } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { ChannelError } from "../channel/channel.ts";
import { Favour } from "../sync/favour.ts";
import type { SpinBudget } from "../sync/spin-budget.ts";
import { PostcopyError } from "../util/errors.ts";
import { pinEvents } from "./left-events.ts";
import { LocalPages } from "./local-pages.ts";
import { MemoryEvents, NOWHERE } from "./memory-events.ts";
import type { ReturnPath } from "./return-path.ts";
import { HELD, requestTicks, WORD } from "./shared.ts";
import type { PageState } from "./shared.ts";
import { UrgentChannel } from "./urgent-channel.ts";
import type { UrgentOptions } from "./urgent-channel.ts";

/** What the fault thread works with. */
export interface FaultContext extends UrgentOptions {
  pages: PageState;
  /** Where the guest's memory lies; this thread changes it as the guest's owner does. */
  map: AddressMap;
  /** Where events are read into, if not anywhere. */
  eventsAt: number | undefined;
  /** It is the memory of a VMM, which might discard pages without a word. */
  foreign: boolean;
  returnPath: ReturnPath;
  /** How long answers may be waited for awake. */
  spinning: SpinBudget;
  /** Raised when this thread is to end. */
  stopFd: number;
}

/** How often a page of a VMM's that is there may fault: threads may wait for one, and be told late. */
const WAKES_MAX = 255;

export class FaultThread {
  readonly #context: FaultContext;
  readonly #poll = new PollSet();
  readonly #urgent: UrgentChannel;
  readonly #favour: Favour;
  /** Pages were asked for, and nothing has come on the urgent channel since. */
  #asked = false;
  readonly #events: MemoryEvents;
  readonly #local: LocalPages;
  /** How often pages of a VMM's that are there have faulted (WAKES_MAX), by block. */
  readonly #woken: readonly Uint8Array[];
  /** When the last wait ended. A fault is counted from here on: before it is read. */
  #foundAt = 0;

  /** Makes the calling thread the fault thread. */
  constructor(context: FaultContext) {
    this.#context = context;
    this.#favour = new Favour(context.shared.control, WORD.favour);
    this.#favour.beFirst();
    const fd = Atomics.load(context.shared.control, WORD.userfaultFd);
    // Here, as postcopy begins with the end of --mlock.
    if (context.eventsAt !== undefined) pinEvents(context.eventsAt, context.warn);
    const userfault = fd < 0 ? undefined : new Userfault(fd, context.eventsAt);
    this.#poll.add(context.stopFd, POLL.POLLIN);
    this.#poll.add(fd, POLL.POLLIN);
    this.#urgent = new UrgentChannel(context, this.#poll);
    this.#woken = context.foreign
      ? context.blocks.map((block) => new Uint8Array(targetPages(block)))
      : [];
    this.#events = new MemoryEvents(context, userfault, this.#favour);
    this.#local = new LocalPages(context, userfault, () => this.#events.makeWay());
  }

  /** Serves faults until the stop descriptor is raised. */
  run(): void {
    // One turn handles all that is ready.
    while (this.#turn()) {
      this.#favour.exempt(this.#context.spinning.takeSpent());
      this.#favour.turn();
    }
    this.#urgent.close();
  }

  #turn(): boolean {
    if (!this.#spin()) {
      this.#poll.wait(Infinity);
      this.#foundAt = monotonicNs();
    }
    if (this.#urgent.serve()) this.#asked = false;
    if (this.#poll.ready(1) !== 0) this.#events.drain();
    this.#requestFaults();
    return this.#poll.ready(0) === 0;
  }

  /** Waits awake for the answer to a request, or another fault; whether either came. */
  #spin(): boolean {
    const { spinning } = this.#context;
    if (!this.#asked || !this.#urgent.isOpen || !spinning.begin(monotonicNs())) return false;
    for (;;) {
      const came = this.#poll.wait(0) > 0;
      this.#foundAt = monotonicNs();
      if (!came && spinning.mayGoOn(this.#foundAt)) continue;
      spinning.end(this.#foundAt, came);
      return came;
    }
  }

  /** What whoever places pages here is to do about EAGAIN. */
  makeWay(): void {
    this.#events.makeWay();
  }

  /** To be called as often as a peer can make this thread work. */
  workedOn(): void {
    this.#favour.turn();
  }

  /** Asks the source for each faulting page that is not here and was not asked for yet. */
  #requestFaults(): void {
    // Placing may have to read events first: new faults may be added meanwhile.
    const { faults, minorFaults } = this.#events;
    if (faults.length > 0) Atomics.add(this.#context.shared.control, WORD.faultsFound, 1);
    while (faults.length + minorFaults.length > 0) {
      for (const address of faults) if (address !== NOWHERE) this.#requestFault(address);
      faults.length = 0;
      for (const address of minorFaults) if (address !== NOWHERE) this.#mapCached(address);
      minorFaults.length = 0;
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
      returnPath.flushRequests(() => {
        const held = Atomics.load(shared.control, WORD.requestsHeld) !== HELD.no;
        this.#asked = !held;
        return held;
      });
    } catch (error) {
      // The thread that reads the link finds out what is wrong with it.
      if (!(error instanceof ChannelError)) throw error;
    }
  }

  #requestFault(address: number): void {
    const { pages, shared, returnPath } = this.#context;
    shared.counters.add(DEST.faults, 1);
    const piece = this.#pieceAt(address);
    const block = this.#blockOf(piece);
    const start = this.#hostPageStart(piece, block, address);
    const page = start / TARGET_PAGE_SIZE;
    const received = pages.received[block.index];
    const requestedAt = pages.requestedAt[block.index];
    if (!received || !requestedAt) throw new Error("no page state");
    if (this.#isZero(block, page)) {
      this.#local.placeZeros(block, start);
      return;
    }
    if (received.test(page)) {
      this.#answerHere(block, start);
      return;
    }
    if (Atomics.load(requestedAt, page) !== 0) return;
    Atomics.store(requestedAt, page, requestTicks(this.#foundAt));
    // The page may have come since; its placer looks at the request after it has set the bit.
    if (received.test(page)) {
      Atomics.store(requestedAt, page, 0);
      this.#local.wake(block, start);
      return;
    }
    shared.counters.add(DEST.faultsRemote, 1);
    shared.counters.add(DEST.pagesAwaited, targetPagesPerHostPage(block));
    returnPath.addRequest(block, start);
  }

  /** The piece of the guest's memory that a fault is in. */
  #pieceAt(address: number): number {
    const piece = this.#context.map.pieceAt(address);
    if (piece >= 0) return piece;
    const where = `0x${address.toString(16)}`;
    throw new PostcopyError("UNKNOWN_FAULT", `A fault at ${where} is in no memory of the guest`, {
      hint: "the VMM has registered more than it has handed over",
    });
  }

  #blockOf(piece: number): RamBlock {
    const { blocks, map } = this.#context;
    const block = blocks[map.block(piece)];
    if (block === undefined) throw new Error(`piece ${piece} is of no block`);
    return block;
  }

  /** Where the host page that an address is in begins in its block. */
  #hostPageStart(piece: number, { pageSize }: RamBlock, address: number): number {
    const { map } = this.#context;
    const offset = map.offset(piece) + address - map.address(piece);
    return offset - (offset % pageSize);
  }

  /**
   * A fault on a page that came: it came meanwhile. One that faults for ever is there no more: it was
   * discarded, and nobody said so. Whether it is zeros then only its owner knows.
   */
  #answerHere(block: RamBlock, start: number): void {
    const woken = this.#woken[block.index];
    if (woken !== undefined) {
      const page = start / TARGET_PAGE_SIZE;
      const times = woken[page] ?? 0;
      if (times === WAKES_MAX) throw discardedUnheard(block, start);
      woken[page] = times + 1;
    }
    this.#local.wake(block, start);
  }

  #mapCached(address: number): void {
    this.#context.shared.counters.add(DEST.faults, 1);
    const piece = this.#pieceAt(address);
    const block = this.#blockOf(piece);
    this.#local.mapCached(block, this.#hostPageStart(piece, block, address));
  }

  /** Pages that are known to be zeros although they are not there: discarded, or never touched. */
  #isZero(block: RamBlock, page: number): boolean {
    const { removed, unpopulated } = this.#context.pages;
    return (
      removed[block.index]?.test(page) === true || unpopulated[block.index]?.test(page) === true
    );
  }
}

function discardedUnheard({ name }: RamBlock, start: number): PostcopyError {
  const what = `The VMM has discarded the page at ${start} of ${name} and was not heard`;
  return new PostcopyError("UNHEARD_DISCARD", what, {
    hint: "it must ask for UFFD_FEATURE_EVENT_REMOVE before it hands its memory over",
  });
}
