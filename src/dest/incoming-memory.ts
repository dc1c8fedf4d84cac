/**
 * The incoming thread's care for the guest's memory: the list of blocks, precopy pages, discards,
 * and at LISTEN the hand-over to the fault and listen threads.
 */
import { BASE_PAGE_BYTES, mlockall, munlockall } from "../../syscalls/memory.ts";
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { setThreadNice } from "../../syscalls/process.ts";
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import { blockNamed, pageSizeSummary, totalPages } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { AddressMap } from "../ram/address-map.ts";
import { checkTables } from "../ram/tables.ts";
import { MemoryWindows } from "../ram/windows.ts";
import { DEST } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import type { ByteRange } from "../stream/command.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { FEATURE, KEPT_REQUESTS } from "../stream/hello.ts";
import { flushesMultifdAfterEachSection } from "../stream/machine-type.ts";
import { decodeRamSetup } from "../stream/ram-setup.ts";
import type { RamSetupBlock } from "../stream/ram-setup.ts";
import { checkRamSection } from "../stream/section.ts";
import type { SectionHeader } from "../stream/section.ts";
import { StreamError } from "../util/errors.ts";
import { forgetReceived, requireSameList } from "./begun-memory.ts";
import type { BegunMemory } from "./begun-memory.ts";
import { awaitThread } from "./context.ts";
import type { GuestMemory, IncomingContext } from "./context.ts";
import { countedSink } from "./counting-sink.ts";
import { Discards, requireWhole } from "./discards.ts";
import { pauseForEvents } from "./events-pause.ts";
import { coverOnly, liveSource, requireAllDiscarded, requireNotPlaced } from "./foreign-memory.ts";
import type { ArrivedPart, ForeignMemory, PageSink, PageSizes } from "./guest.ts";
import { releaseRequests } from "./held-requests.ts";
import { takeLeftEvents } from "./left-events.ts";
import { checkHost, openHostUserfault } from "./host-userfault.ts";
import { MemorySink } from "./memory-sink.ts";
import { settleMissing } from "./missing-pages.ts";
import { addPlaceCounts, Placer } from "./placer.ts";
import { RamLoader } from "./ram-loader.ts";
import { attachPageState, createPageState, HELD, WORD } from "./shared.ts";
import type { PageState, PageStateData } from "./shared.ts";

/**
 * What is kept of a page: some bits, and the checksum of one that is stored. When it was asked for
 * is kept as well, in memory that is taken where it is written: of guests that run here alone.
 */
const BYTES_A_PAGE = 5;

/** Favour of this thread from the switchover on, where the host allows it: whom it wakes would take its
 * processor, and the guest waits for this thread alone. */
const SWITCH_NICE = -10;

type RamSectionHeader = Extract<SectionHeader, { kind: "start" | "part" | "end" }>;

export class IncomingMemory {
  /** RAM's END has come on the main stream: everything there is to know of memory is known. */
  complete = false;
  /** The source said hello: it is this program. */
  sourceIsOurs = false;
  /** Machine type of the stream's configuration. */
  machine = "";
  readonly #context: IncomingContext;
  #loader: RamLoader;
  /** What the source discarded. */
  #discards = new Discards([]);
  /** Where pages of a guest that will run here go. */
  #sink: MemorySink | undefined;
  /** Where those of a VMM's guest go. */
  #placer: Placer | undefined;
  /** Target pages that are missing, as far as they are counted as they go and come (`prepare`). */
  #missing = 0;
  /** The userfaultfd, and the fault thread at work. */
  #userfault: Userfault | undefined;
  #prepared = false;
  /** The memory of a VMM, and whether the source can send what that needs. */
  #foreign: ForeignMemory | undefined;
  #chosen = 0;
  #ramSectionId: number | undefined;
  #advice: PageSizes | undefined;
  #blocks: readonly RamBlock[] = [];
  #pageData: PageStateData | undefined;
  #pages: PageState | undefined;
  /** Of a VMM: what is there of it after a source that was lost before LISTEN. */
  #begun: BegunMemory | undefined;
  #takenOver = false;
  /** Undefined for a source that has no multifd channels. */
  #multifd: IncomingContext["multifd"];

  constructor(context: IncomingContext) {
    this.#context = context;
    this.#loader = new RamLoader(context.channel);
  }

  /**
   * Postcopy will come: what it needs of this host is asked for now, while the guest still runs at
   * the source. Locked memory could not be discarded, so the lock is lifted until the end.
   */
  advise(ram: PageSizes | undefined): void {
    if (ram === undefined) {
      throw new StreamError("UNSUPPORTED", "The source advised postcopy without RAM");
    }
    if (ram.targetPageSize !== TARGET_PAGE_SIZE) {
      throw new StreamError(
        "PAGE_SIZE",
        `The source's target pages have ${ram.targetPageSize} bytes, here they have ` +
          `${TARGET_PAGE_SIZE}`,
      );
    }
    this.#advice = ram;
    if (this.#context.guest.memory === "userfault") checkHost(ram);
    if (this.#context.lockMemory) munlockall();
  }

  /** The source has chosen what is in force from here on (FEATURE of stream/hello.ts). */
  choose(features: number): void {
    this.#chosen = features;
    if ((features & FEATURE.pageRuns) !== 0) {
      this.#expectRuns((features & FEATURE.packedRuns) !== 0);
    }
  }

  /** The source sends page runs, from here on; `packed`: compressed ones, too. */
  #expectRuns(packed: boolean): void {
    this.#loader.runs = true;
    this.#loader.packedRuns = packed;
    const { control } = this.#context.shared;
    Atomics.store(control, WORD.pageRuns, 1);
    Atomics.store(control, WORD.packedRuns, packed ? 1 : 0);
  }

  /** Whether the list of RAM blocks has come. */
  get isKnown(): boolean {
    return this.#pages !== undefined;
  }

  /** The same, or that of a source before: the other threads know of this memory. */
  get hasBegun(): boolean {
    return this.isKnown || this.#begun !== undefined;
  }

  /** LISTEN: what is missing is all that is to come. */
  get isTakenOver(): boolean {
    return this.#takenOver;
  }

  /** The source of a VMM's memory is lost before LISTEN: another one begins from the start. */
  beginAnew(): void {
    const { sink } = this.#loader;
    if (this.#pages !== undefined && this.#pageData !== undefined && sink !== undefined) {
      const ramSectionId = this.#ramSectionId ?? 0;
      const [blocks, pages, pageData] = [this.#blocks, this.#pages, this.#pageData];
      this.#begun = { blocks, pages, pageData, sink, ramSectionId };
    }
    this.#loader = new RamLoader(this.#context.channel);
    this.complete = this.sourceIsOurs = false;
    this.#chosen = 0;
    this.#blocks = [];
    this.#pages = this.#pageData = this.#advice = this.#ramSectionId = undefined;
  }

  /**
   * Asks for a page that is here, so often that it says to a QEMU that the guest is kept. The source waits
   * for what comes behind that, so they go out together.
   */
  sayKept(): void {
    const [block] = this.#blocks;
    if (block === undefined || this.sourceIsOurs) return;
    const { returnPath } = this.#context;
    for (let request = 0; request < KEPT_REQUESTS; request++) returnPath.addRequest(block, 0);
    returnPath.flushRequests();
  }

  /** Locks memory again after postcopy, if that was asked for. */
  restoreLock(): void {
    if (this.#context.lockMemory) mlockall();
  }

  /** The body of a RAM section of the main stream, up to its footer. */
  loadSection(section: RamSectionHeader): void {
    const { reader } = this.#context.channel;
    if (this.complete) {
      const id = section.sectionId;
      throw new StreamError("UNEXPECTED", `Section ${id} came after guest memory had ended`);
    }
    if (section.kind === "start") {
      checkRamSection(section, reader);
      if (this.#ramSectionId !== undefined) {
        throw new StreamError("UNEXPECTED", "The section of guest memory started twice");
      }
      this.#ramSectionId = section.sectionId;
    } else if (section.sectionId !== this.#ramSectionId) {
      throw new StreamError("UNKNOWN_SECTION", `Section ${section.sectionId} was never started`);
    }
    // A page that comes after its range was discarded must not be forgotten with it.
    this.forgetDiscarded();
    for (;;) {
      const end = this.#loader.load();
      this.#account();
      if (end === "end of section") break;
      if (end === "memory size") this.#prepare();
      else if (end === "multifd flush") this.#multifd?.flush();
      else reader.ensure(reader.available + 1);
    }
    if (flushesMultifdAfterEachSection(this.machine)) this.#multifd?.flush();
    if (section.kind !== "end") return;
    this.#multifd?.end();
    this.complete = true;
  }

  #account(): void {
    const { counters } = this.#context.shared;
    if (this.#sink !== undefined) {
      this.#missing -= this.#sink.fresh;
      this.#sink.fresh = 0;
    }
    if (this.#placer !== undefined) addPlaceCounts(counters, this.#placer.counts);
    counters.add(DEST.pagesPrecopy, this.#loader.normal);
    counters.add(DEST.pagesPrecopyZero, this.#loader.zero);
    this.#loader.normal = 0;
    this.#loader.zero = 0;
    counters.set(DEST.bytesReceived, this.#context.channel.reader.offset);
  }

  /** The list of RAM blocks: makes room for them, here and in the other threads. */
  #prepare(): void {
    const { channel, guest, shared } = this.#context;
    if (this.#pages !== undefined) {
      throw new StreamError("UNEXPECTED", "The list of RAM blocks came twice");
    }
    const setup = decodeRamSetup(channel.reader, this.#loader.memoryTotal, {
      pageSizeSummary: this.#advice?.pageSizeSummary,
      basePageSize: BASE_PAGE_BYTES,
    });
    const advice = this.#advice;
    checkTables(setup, BYTES_A_PAGE);
    if (guest.memory === "foreign" && !this.sourceIsOurs) throw liveSource();
    if (this.#begun !== undefined) {
      this.#goOnWith(this.#begun, setup);
      return;
    }
    this.#blocks = guest.prepareMemory(setup, advice);
    this.#foreign = guest.foreign?.();
    const summary = pageSizeSummary(this.#blocks);
    // A VMM's pages are larger than those that were saved: the source is told so (`needs`).
    const differs = this.#foreign === undefined && summary !== advice?.pageSizeSummary;
    if (advice !== undefined && differs) {
      throw new StreamError(
        "PAGE_SIZE",
        `The source's RAM has page sizes 0x${advice.pageSizeSummary.toString(16)}, here they are ` +
          `0x${summary.toString(16)}: postcopy needs the same on both sides`,
      );
    }
    // The source has shown what it is; from here on a guest that stands still has nothing to send.
    channel.allowAnyTime();
    this.#discards = new Discards(this.#blocks);
    const pageData = createPageState(this.#blocks, this.#keptPages);
    const pages = attachPageState(pageData, this.#blocks);
    this.#pageData = pageData;
    this.#pages = pages;
    if (this.#foreign !== undefined) this.#adopt(this.#foreign, pages);
    this.#loader.blocks = this.#blocks;
    this.#loader.sink = this.#makeSink(pages);
    shared.counters.set(DEST.totalPages, totalPages(this.#blocks));
    this.#context.emit({ kind: "guest", blocks: this.#blocks });
    this.#multifd = this.sourceIsOurs ? undefined : this.#context.multifd;
    this.#context.announceMemory({
      blocks: this.#blocks,
      pages: pageData,
      ...this.#place,
      sourceIsOurs: this.sourceIsOurs,
      ramSectionId: this.#ramSectionId ?? 0,
      sinkData: guest.sinkData(),
    });
  }

  /** Another source has begun before: the other threads are at work on its blocks, and stay so. */
  #goOnWith(begun: BegunMemory, setup: readonly RamSetupBlock[]): void {
    requireSameList(begun, { setup, ramSectionId: this.#ramSectionId ?? 0 });
    this.#context.channel.allowAnyTime();
    forgetReceived(begun.pages, this.#context.shared.placingLock);
    ({ blocks: this.#blocks, pages: this.#pages, pageData: this.#pageData } = begun);
    this.#discards = new Discards(this.#blocks);
    begun.sink.dropPart?.();
    this.#loader.blocks = this.#blocks;
    this.#loader.sink = begun.sink;
  }

  /**
   * A VMM's memory is filled through its own userfaultfd, and it runs: what has been placed is out of
   * our hands, and what it has no memory for is done with.
   */
  #adopt(foreign: ForeignMemory, pages: PageState): void {
    const { control } = this.#context.shared;
    const { userfaultFd, map, kept } = foreign;
    Atomics.store(control, WORD.userfaultFd, userfaultFd);
    Atomics.store(control, WORD.requestsHeld, HELD.untilListen);
    Atomics.store(control, WORD.anyRemoved, 1);
    if (kept?.again === true) {
      const { shared } = this.#context;
      takeLeftEvents({ shared, blocks: this.#blocks, pages, map }, kept.eventsAt);
    } else if (kept === undefined && this.#pageData !== undefined) {
      coverOnly(map, this.#pageData.received, this.#pageData.removed, this.#blocks);
    }
  }

  /** Page state that lies where it outlives this process. */
  get #keptPages(): Partial<PageStateData> {
    const kept = this.#foreign?.kept;
    return kept === undefined ? {} : { received: kept.received, removed: kept.removed };
  }

  /** Where the guest's memory lies, for the threads that place its pages. */
  get #place(): Pick<GuestMemory, "map" | "foreign" | "eventsAt" | "needs"> {
    const foreign = this.#foreign;
    const map = foreign?.map ?? AddressMap.ofBlocks(this.#blocks);
    const needs = this.#context.guest.needs ?? 0;
    const eventsAt = foreign?.kept?.eventsAt;
    return { map: map.shared, foreign: foreign !== undefined, eventsAt, needs };
  }

  /** Goes on with a guest that an earlier process took over; every thread is at work then. */
  resume({ blocks, pages: kept, ramSectionId, sourceIsOurs }: ArrivedPart): void {
    const { guest, shared } = this.#context;
    this.#blocks = blocks;
    this.sourceIsOurs = sourceIsOurs;
    const pages = createPageState(blocks, kept);
    const state = attachPageState(pages, blocks);
    this.#foreign = guest.foreign?.();
    if (this.#foreign !== undefined) this.#adopt(this.#foreign, state);
    const missing = state.received.reduce((sum, bits) => sum + bits.pages - bits.count(), 0);
    Atomics.store(shared.control, WORD.missing, missing);
    shared.counters.set(DEST.totalPages, totalPages(blocks));
    shared.counters.set(DEST.missingPages, missing);
    this.#context.emit({ kind: "guest", blocks });
    const sinkData = guest.sinkData();
    const rest = { sourceIsOurs, ramSectionId, sinkData, ...this.#place };
    this.#context.announceMemory({ blocks, pages, ...rest });
    shared.faultStart.post();
    this.#handOver();
  }

  #makeSink(pages: PageState): PageSink {
    const { channel, guest, shared } = this.#context;
    const stored = guest.storeSink?.(pages, channel.buffer);
    const sink = stored ?? this.#placingSink(pages) ?? this.#memorySink(pages);
    return countedSink(sink, KIND.precopy, shared, this.#blocks);
  }

  #placingSink(pages: PageState): Placer | undefined {
    if (this.#foreign === undefined) return undefined;
    const { channel, shared } = this.#context;
    this.#placer = new Placer({
      ...{ shared, pages, buffer: channel.buffer, times: shared.listenTimes },
      ...{ map: this.#foreign.map, foreign: true, urgent: false },
      drainEvents: pauseForEvents,
    });
    return this.#placer;
  }

  #memorySink(pages: PageState): MemorySink {
    const windows = this.#blocks.map(({ address, length }) => new MemoryWindows(address, length));
    this.#sink = new MemorySink(windows, pages, this.#context.channel.buffer.bytes);
    return this.#sink;
  }

  /** Forgets ranges that went stale at the source: they will fault, and will be sent again. */
  discard(name: string, ranges: readonly ByteRange[]): void {
    const block = blockNamed(this.#blocks, name);
    if (block === undefined) {
      throw new StreamError("UNKNOWN_BLOCK", `The source discards an unknown block "${name}"`);
    }
    this.#discards.count(ranges);
    for (const range of ranges) {
      requireWhole(block, range);
      this.#context.guest.reserve?.(block, range.start, range.length);
      const { first, end } = this.#discards.note(block, range);
      if (this.#foreign !== undefined) {
        requireNotPlaced(this.#pages, block, first, end);
        continue;
      }
      this.#countMissing(block, first, end);
      this.#pages?.received[block.index]?.clearRange(first, end - first);
      this.#pages?.unpopulated[block.index]?.clearRange(first, end - first);
    }
  }

  /** Gives back to the kernel what was discarded so far. */
  forgetDiscarded(): void {
    this.#discards.forget();
  }

  #countMissing(block: RamBlock, first: number, end: number): void {
    const received = this.#pages?.received[block.index];
    if (this.#prepared) this.#missing += received?.countRange(first, end - first) ?? 0;
  }

  /**
   * The source is about to switch over, and its guest still runs: does ahead what LISTEN would take
   * the time of a guest that stands. From now on pages are missing as they are discarded.
   */
  prepare(): void {
    const { memory } = this.#context.guest;
    if (this.#pages === undefined || memory === "stored" || this.#prepared) return;
    setThreadNice(SWITCH_NICE);
    this.#startFaultThread();
    // A VMM's guest runs, and is not told yet that what nobody sends it is zeros.
    if (memory === "foreign") return;
    this.#missing = settleMissing(this.#pages, this.#discards.pages);
  }

  /** Opens the userfaultfd, and lets the fault thread begin. */
  #startFaultThread(): void {
    const { guest, shared } = this.#context;
    this.#prepared = true;
    if (guest.memory === "userfault") {
      const warn = (message: string): void => this.#context.emit({ kind: "warning", message });
      this.#userfault = openHostUserfault(pageSizeSummary(this.#blocks), warn);
      Atomics.store(shared.control, WORD.userfaultFd, this.#userfault.fd);
    }
    shared.faultStart.post();
  }

  /**
   * LISTEN: does what `prepare` has not done, registers the memory, and hands the stream to the listen
   * thread. When it returns, that and the fault thread are at work.
   */
  listen(): void {
    const { guest, shared } = this.#context;
    if (this.#pages === undefined || this.#pageData === undefined) {
      throw new StreamError("WRONG_STATE", "POSTCOPY_LISTEN came before the list of RAM blocks");
    }
    this.#multifd?.end();
    this.forgetDiscarded();
    if (this.#foreign !== undefined) this.#requireChoice(guest.needs ?? 0);
    this.#settle(this.#pages);
    this.#takenOver = true;
    guest.takeOver?.(this.#pages, {
      ramSectionId: this.#ramSectionId ?? 0,
      sourceIsOurs: this.sourceIsOurs,
    });
    if (!this.#prepared) this.#startFaultThread();
    this.#handOver();
    if (this.#foreign === undefined) return;
    releaseRequests(shared, this.#blocks, this.#pages, this.#context.returnPath);
  }

  /** How many pages are missing is known from here on. */
  #settle(pages: PageState): void {
    const { control, counters, placingLock } = this.#context.shared;
    // A VMM's guest may discard pages just now.
    placingLock.lock();
    try {
      const isCounted = this.#prepared && this.#foreign === undefined;
      if (this.#foreign !== undefined) requireAllDiscarded(pages, this.#discards.pages);
      const missing = isCounted ? this.#missing : settleMissing(pages, this.#discards.pages);
      Atomics.store(control, WORD.missing, missing);
      counters.set(DEST.missingPages, missing);
    } finally {
      placingLock.unlock();
    }
  }

  /** What was answered to the hello was what this guest cannot be filled without. */
  #requireChoice(needs: number): void {
    if ((this.#chosen & needs) === needs) return;
    const what = "The source cannot send pages as large as those of the VMM";
    throw new StreamError("PAGE_SIZE", what, { hint: "it takes the same postcopy at both ends" });
  }

  /** The memory to the fault thread, then the stream to the listen thread. */
  #handOver(): void {
    const { channel, shared } = this.#context;
    awaitThread(shared, (ms) => shared.faultThreadSem.wait(ms));
    awaitThread(shared, (ms) => shared.listenThreadSem.wait(ms));
    for (const { address, length } of this.#userfault === undefined ? [] : this.#blocks) {
      this.#userfault?.register(address, length, UFFD.UFFDIO_REGISTER_MODE_MISSING);
    }
    const { address, length, pos, end, base } = channel.position();
    shared.position.set([address, length, pos, end, base]);
    shared.listenStart.post();
  }
}
