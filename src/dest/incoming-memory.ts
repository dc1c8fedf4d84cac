/**
 * The incoming thread's care for the guest's memory: what may come when, from ADVISE over precopy and
 * discards to LISTEN, where the fault and listen threads take it over.
 */
import { mlockall, munlockall } from "../../syscalls/memory.ts";
import { setThreadNice } from "../../syscalls/process.ts";
import { blockNamed } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import type { ByteRange } from "../stream/command.ts";
import { FEATURE } from "../stream/hello.ts";
import { flushesMultifdAfterEachSection } from "../stream/machine-type.ts";
import type { RamSetupBlock } from "../stream/ram-setup.ts";
import { StreamError } from "../util/errors.ts";
import { announceMemory, makeRoom, readBlockList, resumeMemory } from "./arriving-memory.ts";
import type { ArrivingMemory } from "./arriving-memory.ts";
import { forgetReceived, requireSameList } from "./begun-memory.ts";
import type { BegunMemory } from "./begun-memory.ts";
import type { IncomingContext } from "./context.ts";
import { liveSource } from "./foreign-memory.ts";
import type { ArrivedPart, PageSizes, StreamFacts } from "./guest.ts";
import { releaseRequests } from "./held-requests.ts";
import { checkHost } from "./host-userfault.ts";
import { bindIdentity, readIdentity } from "./identity.ts";
import { ListenHandover } from "./listen-handover.ts";
import { OwedPages } from "./owed-pages.ts";
import { requireTargetPageSize } from "./page-sizes.ts";
import { makePrecopySink } from "./precopy-sink.ts";
import { RamSections } from "./ram-sections.ts";
import type { ListedMemory, RamSectionHeader } from "./ram-sections.ts";
import { WORD } from "./shared.ts";
import type { SourceHello } from "./source-hello.ts";

/** Favour of this thread from the switchover on, where the host allows it: whom it wakes would take its
 * processor, and the guest waits for this thread alone. */
const SWITCH_NICE = -10;

export class IncomingMemory {
  /** Machine type of the stream's configuration. */
  machine = "";
  readonly #context: IncomingContext;
  readonly #source: SourceHello;
  readonly #handover: ListenHandover;
  #sections: RamSections;
  #advice: PageSizes | undefined;
  /** Both are there once the list of RAM blocks has come. */
  #memory: ArrivingMemory | undefined;
  #owed: OwedPages | undefined;
  /** Of a VMM: what is there of it after a source that was lost before LISTEN. */
  #begun: BegunMemory | undefined;
  #takenOver = false;

  constructor(context: IncomingContext, source: SourceHello) {
    this.#context = context;
    this.#source = source;
    this.#handover = new ListenHandover(context);
    this.#sections = new RamSections(context);
  }

  /** RAM's END has come on the main stream: everything there is to know of memory is known. */
  get complete(): boolean {
    return this.#sections.complete;
  }

  /** The blocks of the guest; none before their list has come. */
  get blocks(): readonly RamBlock[] {
    return this.#memory?.blocks ?? [];
  }

  /** Whether that list has come. */
  get isKnown(): boolean {
    return this.#memory !== undefined;
  }

  /** The same, or that of a source before: the other threads know of this memory. */
  get hasBegun(): boolean {
    return this.isKnown || this.#begun !== undefined;
  }

  /** LISTEN: what is missing is all that is to come. */
  get isTakenOver(): boolean {
    return this.#takenOver;
  }

  get #facts(): StreamFacts {
    return { sourceIsOurs: this.#source.isOurs, ramSectionId: this.#sections.sectionId };
  }

  /**
   * Postcopy will come: what it needs of this host is asked for now, while the guest still runs at
   * the source. Locked memory could not be discarded, so the lock is lifted until the end.
   */
  advise(ram: PageSizes | undefined): void {
    if (ram === undefined) {
      throw new StreamError("UNSUPPORTED", "The source advised postcopy without RAM");
    }
    requireTargetPageSize(ram.targetPageSize);
    this.#advice = ram;
    if (this.#context.guest.memory === "userfault") checkHost(ram);
    if (this.#context.lockMemory) munlockall();
  }

  /** The source has chosen what is in force from here on (FEATURE of stream/hello.ts). */
  choose(features: number): void {
    if ((features & FEATURE.pageRuns) === 0) return;
    const packed = (features & FEATURE.packedRuns) !== 0;
    this.#sections.expectRuns(packed);
    const { control } = this.#context.shared;
    Atomics.store(control, WORD.pageRuns, 1);
    Atomics.store(control, WORD.packedRuns, packed ? 1 : 0);
  }

  /** The source of a VMM's memory is lost before LISTEN: another one begins from the start. */
  beginAnew(): void {
    const { listed, sectionId: ramSectionId } = this.#sections;
    if (this.#memory !== undefined && listed !== undefined) {
      this.#begun = { memory: this.#memory, listed, ramSectionId };
    }
    this.#sections = new RamSections(this.#context);
    this.#memory = this.#owed = this.#advice = undefined;
  }

  /** Locks memory again after postcopy, if that was asked for. */
  restoreLock(): void {
    if (this.#context.lockMemory) mlockall();
  }

  /** The body of a RAM section of the main stream, up to its footer. */
  loadSection(section: RamSectionHeader): void {
    // A page that comes after its range was discarded must not be forgotten with it.
    this.forgetDiscarded();
    this.#sections.load(section, (memoryTotal) => this.#takeList(memoryTotal));
  }

  /** The list of RAM blocks: makes room for them, here and in the other threads. */
  #takeList(memoryTotal: number): ListedMemory {
    const { channel, guest } = this.#context;
    const setup = readBlockList(channel.reader, memoryTotal, this.#advice);
    if (guest.memory === "foreign" && !this.#source.isOurs) throw liveSource();
    return this.#begun === undefined ? this.#begin(setup) : this.#goOnWith(this.#begun, setup);
  }

  #begin(setup: readonly RamSetupBlock[]): ListedMemory {
    const memory = makeRoom(this.#context, setup, this.#advice);
    const owed = new OwedPages(this.#context, memory);
    const sink = makePrecopySink(this.#context, memory, owed);
    this.#memory = memory;
    this.#owed = owed;
    announceMemory(this.#context, memory, this.#facts);
    return {
      blocks: memory.blocks,
      sink,
      multifd: this.#source.isOurs ? undefined : this.#context.multifd,
      flushesEachSection: flushesMultifdAfterEachSection(this.machine),
    };
  }

  /** Another source has begun before: the other threads are at work on its blocks, and stay so. */
  #goOnWith(begun: BegunMemory, setup: readonly RamSetupBlock[]): ListedMemory {
    const { memory, listed } = begun;
    requireSameList(begun, { setup, ramSectionId: this.#sections.sectionId });
    this.#context.channel.allowAnyTime();
    forgetReceived(memory.pages, this.#context.shared.placingLock);
    this.#memory = memory;
    this.#owed = new OwedPages(this.#context, memory);
    listed.sink.sink.dropPart?.();
    return listed;
  }

  /** Goes on with a guest that an earlier process took over; every thread is at work then. */
  resume(part: ArrivedPart): void {
    const { sourceIsOurs, ramSectionId } = part;
    this.#source.isOurs = sourceIsOurs;
    this.#memory = resumeMemory(this.#context, part);
    announceMemory(this.#context, this.#memory, { sourceIsOurs, ramSectionId });
    this.#handover.complete(this.#memory.blocks);
  }

  /** Forgets ranges that went stale at the source: they will fault, and will be sent again. */
  discard(name: string, ranges: readonly ByteRange[]): void {
    const block = blockNamed(this.blocks, name);
    if (block === undefined) {
      throw new StreamError("UNKNOWN_BLOCK", `The source discards an unknown block "${name}"`);
    }
    this.#owed?.discard(block, ranges);
  }

  /** Gives back to the kernel what was discarded so far. */
  forgetDiscarded(): void {
    this.#owed?.giveBack();
  }

  /**
   * The source is about to switch over, and its guest still runs: does ahead what LISTEN would take
   * the time of a guest that stands. From now on pages are missing as they are discarded.
   */
  prepare(): void {
    const { memory } = this.#context.guest;
    if (this.#memory === undefined || memory === "stored" || this.#handover.isPrepared) return;
    setThreadNice(SWITCH_NICE);
    this.#handover.prepare(this.#memory.blocks);
    this.#owed?.countAhead();
  }

  /**
   * LISTEN: does what `prepare` has not done, registers the memory, and hands the stream to the listen
   * thread. When it returns, that and the fault thread are at work.
   */
  listen(): void {
    const { guest, shared, returnPath } = this.#context;
    if (this.#memory === undefined) {
      throw new StreamError("WRONG_STATE", "POSTCOPY_LISTEN came before the list of RAM blocks");
    }
    const { blocks, pages, foreign } = this.#memory;
    this.#sections.endMultifd();
    this.forgetDiscarded();
    if (foreign !== undefined) this.#requireChoice(guest.needs ?? 0);
    this.#owed?.settle();
    this.#takenOver = true;
    bindIdentity(this.#context);
    guest.takeOver?.(pages, { ...this.#facts, identity: readIdentity(shared) });
    this.#handover.complete(blocks);
    if (foreign !== undefined) releaseRequests(shared, blocks, pages, returnPath);
  }

  /** What was answered to the hello was what this guest cannot be filled without. */
  #requireChoice(needs: number): void {
    if ((this.#source.chosen & needs) === needs) return;
    const what = "The source cannot send pages as large as those of the VMM";
    throw new StreamError("PAGE_SIZE", what, { hint: "it takes the same postcopy at both ends" });
  }
}
