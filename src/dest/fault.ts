/**
 * The fault thread (QEMU's `postcopy_ram_fault_thread`): turns the guest's page faults into page
 * requests, and owns the urgent channels on which requested pages come back. It also accepts every
 * further connection, as any of them may be the source's urgent channel.
 */
import { POLL, PollSet, closeDescriptor } from "../../syscalls/descriptor.ts";
import { check } from "../../syscalls/error.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { setThreadNice, monotonicNs } from "../../syscalls/process.ts";
import { acceptConnection } from "../../syscalls/socket.ts";
import { Userfault } from "../../syscalls/userfaultfd.ts";
import type { UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { blockAt } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";
import type { PageSink } from "./guest.ts";
import type { PlaceCounts } from "./placer.ts";
import { RamLoader } from "./ram-loader.ts";
import type { ReturnPath } from "./return-path.ts";
import { requestTicks, WORD } from "./shared.ts";
import type { DestShared, PageState } from "./shared.ts";

/** Urgent connections served at once; further ones are turned away. */
const URGENT_CHANNELS_MAX = 4;
/** Urgent connections served in all: each leaves a few pages of memory behind. */
const URGENT_CONNECTIONS_MAX = 100;
/** Scheduling favour of this thread where the host allows it: it is short and others wait for it. */
const NICE = -15;

/** What the fault thread works with. */
export interface FaultContext {
  shared: DestShared;
  blocks: readonly RamBlock[];
  pages: PageState;
  returnPath: ReturnPath;
  /** Listening socket for further connections, -1 where there can be none. */
  listenFd: number;
  /** Connections that came with the main one and have said nothing yet. */
  early: readonly number[];
  /** Raised when this thread is to end. */
  stopFd: number;
  /** A reading channel and its sink over an urgent connection. */
  openUrgent: (fd: number) => { channel: Channel; sink: PageSink; counts?: PlaceCounts };
  warn: (message: string) => void;
}

interface Urgent {
  channel: Channel;
  loader: RamLoader;
  counts: PlaceCounts | undefined;
  slot: number;
  /** A page has come on it: it is the source's, not a stranger's. */
  proven: boolean;
}

export class FaultThread {
  readonly #context: FaultContext;
  readonly #userfault: Userfault | undefined;
  readonly #poll = new PollSet();
  readonly #urgent: Urgent[] = [];
  readonly #freeSlots: number[] = [];
  /** Faults taken from the kernel and not looked at yet. */
  readonly #faults: number[] = [];
  #zeros: Scratch | undefined;
  #accepted = 0;

  constructor(context: FaultContext) {
    this.#context = context;
    const fd = Atomics.load(context.shared.control, WORD.userfaultFd);
    this.#userfault = fd < 0 ? undefined : new Userfault(fd);
    this.#poll.add(context.stopFd, POLL.POLLIN);
    this.#poll.add(fd, POLL.POLLIN);
    this.#poll.add(context.listenFd, POLL.POLLIN);
    for (let i = 0; i < URGENT_CHANNELS_MAX; i++) this.#freeSlots.push(this.#poll.add(-1, 0));
    for (const early of context.early) this.#addUrgent(early);
  }

  /** Serves faults until the stop descriptor is raised. */
  run(): void {
    setThreadNice(NICE);
    while (this.#turn()) {
      // One turn handles all that is ready.
    }
    for (const urgent of this.#urgent.splice(0)) closeDescriptor(urgent.channel.fd);
  }

  #turn(): boolean {
    this.#poll.wait(Infinity);
    // Requested pages first: somebody waits for each of them.
    for (const urgent of [...this.#urgent]) {
      if (this.#poll.ready(urgent.slot) !== 0) this.#readUrgent(urgent);
    }
    if (this.#poll.ready(1) !== 0) this.drainEvents();
    this.#requestFaults();
    if (this.#poll.ready(2) !== 0) this.#acceptUrgent();
    return this.#poll.ready(0) === 0;
  }

  /**
   * Reads the events that wait. What the guest discarded is noted before any page can be placed
   * again, which is what the lock is for; the faults are looked at later.
   */
  drainEvents(): void {
    const { shared } = this.#context;
    shared.placingLock.lockUrgent();
    try {
      this.#userfault?.readEvents((event) => this.#take(event));
    } finally {
      shared.placingLock.unlock();
    }
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
    // Placing zeros may have to read events first, and new faults may be among them.
    while (this.#faults.length > 0) {
      for (const address of this.#faults.splice(0)) this.#requestFault(address);
    }
    this.#context.returnPath.flushRequests();
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
    Atomics.store(requestedAt, page, requestTicks(monotonicNs()));
    // The page may have come since; its placer looks at the request after it has set the bit.
    if (received.test(page)) {
      Atomics.store(requestedAt, page, 0);
      this.#wake(block, start);
      return;
    }
    shared.counters.add(DEST.faultsRemote, 1);
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
        this.drainEvents();
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

  #acceptUrgent(): void {
    const fd = acceptConnection(this.#context.listenFd);
    if (fd >= 0) {
      this.#addUrgent(fd);
      this.#accepted++;
    }
    // Neither who connects over and over nor a lack of descriptors may cost the guest its life.
    const full = fd === -ERRNO.EMFILE || fd === -ERRNO.ENFILE;
    if (!full && this.#accepted < URGENT_CONNECTIONS_MAX) return;
    this.#poll.set(2, -1, 0);
    this.#context.warn("Further connections are not accepted any more");
  }

  #addUrgent(fd: number): void {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) {
      this.#context.warn("A further connection was turned away");
      closeDescriptor(fd);
      return;
    }
    const { channel, sink, counts } = this.#context.openUrgent(fd);
    const loader = new RamLoader(channel);
    loader.blocks = this.#context.blocks;
    loader.sink = sink;
    this.#poll.set(slot, fd, POLL.POLLIN);
    this.#urgent.push({ channel, loader, counts, slot, proven: false });
    Atomics.add(this.#context.shared.control, WORD.urgentSeen, 1);
  }

  /**
   * Reads an urgent channel. One that breaks has ended: if it was the source's, the main channel
   * will show it. A stranger's bytes must not cost the running guest its life.
   */
  #readUrgent(urgent: Urgent): void {
    try {
      this.#loadUrgent(urgent);
    } catch (error) {
      const { normal, zero } = urgent.loader;
      const stranger = error instanceof StreamError && !urgent.proven && normal + zero === 0;
      if (!stranger && !(error instanceof ChannelError)) throw error;
      this.#context.warn(`A further connection was dropped: ${error.message}`);
      this.#closeUrgent(urgent);
    }
  }

  /** Places all that has arrived on an urgent channel. */
  #loadUrgent(urgent: Urgent): void {
    const { shared } = this.#context;
    for (;;) {
      const got = urgent.channel.tryRead();
      if (got === 0) return;
      if (got < 0) {
        this.#closeUrgent(urgent);
        return;
      }
      const end = urgent.loader.load();
      this.#account(urgent, got);
      if (end === "end of section") {
        Atomics.store(shared.control, WORD.urgentEnded, 1);
        Atomics.notify(shared.control, WORD.urgentEnded);
        this.#closeUrgent(urgent);
        return;
      }
    }
  }

  #account(urgent: Urgent, got: number): void {
    const { counters } = this.#context.shared;
    const { loader, counts } = urgent;
    if (loader.normal + loader.zero > 0) urgent.proven = true;
    counters.add(DEST.bytesUrgent, got);
    counters.add(DEST.pagesUrgent, loader.normal);
    counters.add(DEST.pagesUrgentZero, loader.zero);
    loader.normal = 0;
    loader.zero = 0;
    if (counts === undefined) return;
    counters.add(DEST.urgentExists, counts.exists);
    counters.add(DEST.urgentRetries, counts.retries);
    counters.add(DEST.urgentDropped, counts.dropped);
    counts.exists = 0;
    counts.retries = 0;
    counts.dropped = 0;
  }

  #closeUrgent(urgent: Urgent): void {
    this.#poll.set(urgent.slot, -1, 0);
    this.#freeSlots.push(urgent.slot);
    this.#urgent.splice(this.#urgent.indexOf(urgent), 1);
    closeDescriptor(urgent.channel.fd);
  }
}

/** Target pages that are missing now; what WORD.missing starts with at LISTEN. */
export function countMissing(blocks: readonly RamBlock[], pages: PageState): number {
  return blocks.reduce((sum, block) => {
    const received = pages.received[block.index];
    return sum + (received === undefined ? 0 : received.pages - received.count());
  }, 0);
}
