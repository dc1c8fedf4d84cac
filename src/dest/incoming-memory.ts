/**
 * The incoming thread's care for the guest's memory: what may come when, from ADVISE over precopy and
 * discards to LISTEN, where the fault and listen threads take it over.
 */
import { mlockall, munlockall } from "../../syscalls/memory.ts";
import { setThreadNice } from "../../syscalls/process.ts";
import { blockNamed } from "../ram/block.ts";
import type { ByteRange } from "../stream/command.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { FEATURE, KEPT_REQUESTS } from "../stream/hello.ts";
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
import { ListenHandover } from "./listen-handover.ts";
import { OwedPages } from "./owed-pages.ts";
import { makePrecopySink } from "./precopy-sink.ts";
import { RamSections } from "./ram-sections.ts";
import type { ListedMemory, RamSectionHeader } from "./ram-sections.ts";
import { WORD } from "./shared.ts";

/** Favour of this thread from the switchover on, where the host allows it: whom it wakes would take its
 * processor, and the guest waits for this thread alone. */
const SWITCH_NICE = -10;

export class IncomingMemory {
  /** The source said hello: it is this program. */
  sourceIsOurs = false;
  /** Machine type of the stream's configuration. */
  machine = "";
  readonly #context: IncomingContext;
  readonly #handover: ListenHandover;
  #sections: RamSections;
  #advice: PageSizes | undefined;
  #chosen = 0;
  /** Both are there once the list of RAM blocks has come. */
  #memory: ArrivingMemory | undefined;
  #owed: OwedPages | undefined;
  /** Of a VMM: what is there of it after a source that was lost before LISTEN. */
  #begun: BegunMemory | undefined;
  #takenOver = false;

  constructor(context: IncomingContext) {
    this.#context = context;
    this.#handover = new ListenHandover(context);
    this.#sections = new RamSections(context);
  }

  /** RAM's END has come on the main stream: everything there is to know of memory is known. */
  get complete(): boolean {
    return this.#sections.complete;
  }

  /** Whether the list of RAM blocks has come. */
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
    return { sourceIsOurs: this.sourceIsOurs, ramSectionId: this.#sections.sectionId };
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
    this.sourceIsOurs = false;
    this.#chosen = 0;
    this.#memory = this.#owed = this.#advice = undefined;
  }

  /** Asks for a page that is here, so often that it says to a QEMU that the guest is kept. */
  sayKept(): void {
    const [block] = this.#memory?.blocks ?? [];
    if (block === undefined || this.sourceIsOurs) return;
    const { name, pageSize: length } = block;
    for (let request = 0; request < KEPT_REQUESTS; request++) {
      this.#context.returnPath.send({ kind: "pageRequest", block: name, start: 0, length });
    }
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
    if (guest.memory === "foreign" && !this.sourceIsOurs) throw liveSource();
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
      multifd: this.sourceIsOurs ? undefined : this.#context.multifd,
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
    this.sourceIsOurs = sourceIsOurs;
    this.#memory = resumeMemory(this.#context, part);
    announceMemory(this.#context, this.#memory, { sourceIsOurs, ramSectionId });
    this.#handover.complete(this.#memory.blocks);
  }

  /** Forgets ranges that went stale at the source: they will fault, and will be sent again. */
  discard(name: string, ranges: readonly ByteRange[]): void {
    const block = blockNamed(this.#memory?.blocks ?? [], name);
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
    guest.takeOver?.(pages, this.#facts);
    this.#handover.complete(blocks);
    if (foreign !== undefined) releaseRequests(shared, blocks, pages, returnPath);
  }

  /** What was answered to the hello was what this guest cannot be filled without. */
  #requireChoice(needs: number): void {
    if ((this.#chosen & needs) === needs) return;
    const what = "The source cannot send pages as large as those of the VMM";
    throw new StreamError("PAGE_SIZE", what, { hint: "it takes the same postcopy at both ends" });
  }
}
