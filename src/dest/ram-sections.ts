/**
 * Guest memory in the main stream, up to LISTEN: sections of one number, of which the first (START)
 * begins with the list of RAM blocks, the others (PART) bring pages, and the last one is END.
 */
import { DEST } from "../report/counters.ts";
import type { RamBlock } from "../ram/block.ts";
import { checkRamSection } from "../stream/section.ts";
import type { SectionHeader } from "../stream/section.ts";
import { StreamError } from "../util/errors.ts";
import type { IncomingContext } from "./context.ts";
import type { PrecopySink } from "./precopy-sink.ts";
import { RamLoader } from "./ram-loader.ts";

export type RamSectionHeader = Extract<SectionHeader, { kind: "start" | "part" | "end" }>;

/** What the list of RAM blocks has led to. */
export interface ListedMemory {
  blocks: readonly RamBlock[];
  /** Where the pages go. */
  sink: PrecopySink;
  /** Undefined for a source that has no multifd channels. */
  multifd: IncomingContext["multifd"];
  /** Each section stands for a flush of those, as before QEMU 8.1. */
  flushesEachSection: boolean;
}

/** Reads the list, whose lengths come to `memoryTotal` bytes. */
export type TakeList = (memoryTotal: number) => ListedMemory;

export class RamSections {
  /** END has come: everything there is to know of memory is known. */
  complete = false;
  readonly #context: Pick<IncomingContext, "channel" | "shared">;
  readonly #loader: RamLoader;
  #sectionId: number | undefined;
  #listed: ListedMemory | undefined;

  constructor(context: Pick<IncomingContext, "channel" | "shared">) {
    this.#context = context;
    this.#loader = new RamLoader(context.channel);
  }

  /** The number of the sections; 0 before the first. */
  get sectionId(): number {
    return this.#sectionId ?? 0;
  }

  get listed(): ListedMemory | undefined {
    return this.#listed;
  }

  /** The source sends page runs, from here on; `packed`: compressed ones, too. */
  expectRuns(packed: boolean): void {
    this.#loader.runs = true;
    this.#loader.packedRuns = packed;
  }

  /** The body of a section, up to its footer. @throws StreamError, and what `takeList` throws. */
  load(section: RamSectionHeader, takeList: TakeList): void {
    const { reader } = this.#context.channel;
    this.#begin(section);
    for (;;) {
      const end = this.#loader.load();
      this.#account();
      if (end === "end of section") break;
      if (end === "memory size") this.#takeList(takeList);
      else if (end === "multifd flush") this.#listed?.multifd?.flush();
      else reader.ensure(reader.available + 1);
    }
    if (this.#listed?.flushesEachSection === true) this.#listed.multifd?.flush();
    if (section.kind !== "end") return;
    this.endMultifd();
    this.complete = true;
  }

  /** No more pages come on multifd channels. */
  endMultifd(): void {
    this.#listed?.multifd?.end();
  }

  #begin(section: RamSectionHeader): void {
    const { sectionId } = section;
    if (this.complete) {
      throw new StreamError("UNEXPECTED", `Section ${sectionId} came after guest memory had ended`);
    }
    if (section.kind === "start") {
      checkRamSection(section, this.#context.channel.reader);
      if (this.#sectionId !== undefined) {
        throw new StreamError("UNEXPECTED", "The section of guest memory started twice");
      }
      this.#sectionId = sectionId;
    } else if (sectionId !== this.#sectionId) {
      throw new StreamError("UNKNOWN_SECTION", `Section ${sectionId} was never started`);
    }
  }

  #takeList(takeList: TakeList): void {
    if (this.#listed !== undefined) {
      throw new StreamError("UNEXPECTED", "The list of RAM blocks came twice");
    }
    this.#listed = takeList(this.#loader.memoryTotal);
    this.#loader.blocks = this.#listed.blocks;
    this.#loader.sink = this.#listed.sink.sink;
  }

  #account(): void {
    const { channel, shared } = this.#context;
    this.#listed?.sink.account();
    shared.counters.add(DEST.pagesPrecopy, this.#loader.normal);
    shared.counters.add(DEST.pagesPrecopyZero, this.#loader.zero);
    this.#loader.normal = 0;
    this.#loader.zero = 0;
    shared.counters.set(DEST.bytesReceived, channel.reader.offset);
  }
}
