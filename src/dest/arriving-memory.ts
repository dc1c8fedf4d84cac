/**
 * The guest's memory from the list of RAM blocks on: where it lies, and what is known of its pages. The
 * list comes with a stream, or from an earlier process that took the guest over.
 */
import { BASE_PAGE_BYTES } from "../../syscalls/memory.ts";
import { AddressMap } from "../ram/address-map.ts";
import { totalPages } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { checkTables } from "../ram/tables.ts";
import { DEST } from "../report/counters.ts";
import { decodeRamSetup } from "../stream/ram-setup.ts";
import type { RamSetupBlock } from "../stream/ram-setup.ts";
import type { StreamReader } from "../stream/reader.ts";
import type { IncomingContext } from "./context.ts";
import { coverOnly } from "./foreign-memory.ts";
import type { ArrivedPart, ForeignMemory, PageSizes, StreamFacts } from "./guest.ts";
import { takeLeftEvents } from "./left-events.ts";
import { requireHostPageSizes } from "./page-sizes.ts";
import { attachPageState, createPageState, HELD, WORD } from "./shared.ts";
import type { PageState, PageStateData } from "./shared.ts";

/**
 * What is kept of a page: some bits, and the checksum of one that is stored. When it was asked for
 * is kept as well, in memory that is taken where it is written: of guests that run here alone.
 */
const BYTES_A_PAGE = 5;

export interface ArrivingMemory {
  readonly blocks: readonly RamBlock[];
  readonly pages: PageState;
  /** The same, for the other threads. */
  readonly pageData: PageStateData;
  /** Where the guest runs in a VMM: the memory of that. */
  readonly foreign: ForeignMemory | undefined;
}

/**
 * Reads the list of RAM blocks, whose lengths come to `memoryTotal`.
 * @throws StreamError; HostError NO_MEMORY for more than this host can keep count of.
 */
export function readBlockList(
  reader: StreamReader,
  memoryTotal: number,
  advice: PageSizes | undefined,
): RamSetupBlock[] {
  const setup = decodeRamSetup(reader, memoryTotal, {
    pageSizeSummary: advice?.pageSizeSummary,
    basePageSize: BASE_PAGE_BYTES,
  });
  checkTables(setup, BYTES_A_PAGE);
  return setup;
}

/** Makes room for the blocks of a list: nothing of them is here. @throws StreamError PAGE_SIZE. */
export function makeRoom(
  context: IncomingContext,
  setup: readonly RamSetupBlock[],
  advice: PageSizes | undefined,
): ArrivingMemory {
  const { channel, guest } = context;
  const blocks = guest.prepareMemory(setup, advice);
  const foreign = guest.foreign?.();
  // A VMM's pages are larger than those that were saved: the source is told so (`needs`).
  if (foreign === undefined) requireHostPageSizes(blocks, advice);
  // The source has shown what it is; from here on a guest that stands still has nothing to send.
  channel.allowAnyTime();
  const kept = foreign?.kept;
  const pageData = createPageState(
    blocks,
    // It lies where it outlives this process.
    kept === undefined ? {} : { received: kept.received, removed: kept.removed },
  );
  const memory = { blocks, pages: attachPageState(pageData, blocks), pageData, foreign };
  adopt(context, memory);
  if (foreign !== undefined && kept === undefined) {
    coverOnly(foreign.map, pageData.received, pageData.removed, blocks);
  }
  return memory;
}

/** The memory of a guest that an earlier process took over; what is missing of it is counted. */
export function resumeMemory(
  context: IncomingContext,
  { blocks, pages: kept }: ArrivedPart,
): ArrivingMemory {
  const { guest, shared } = context;
  const pageData = createPageState(blocks, kept);
  const pages = attachPageState(pageData, blocks);
  const memory = { blocks, pages, pageData, foreign: guest.foreign?.() };
  adopt(context, memory);
  const missing = pages.received.reduce((sum, bits) => sum + bits.pages - bits.count(), 0);
  Atomics.store(shared.control, WORD.missing, missing);
  shared.counters.set(DEST.missingPages, missing);
  return memory;
}

/**
 * A VMM's memory is filled through its own userfaultfd, and it runs: what has been placed is out of
 * our hands, and what it has no memory for is done with.
 */
function adopt(
  { shared, emit }: IncomingContext,
  { blocks, pages, foreign }: ArrivingMemory,
): void {
  if (foreign === undefined) return;
  const { userfaultFd, map, kept, notice } = foreign;
  if (notice !== undefined) emit({ kind: "warning", message: notice });
  Atomics.store(shared.control, WORD.userfaultFd, userfaultFd);
  Atomics.store(shared.control, WORD.requestsHeld, HELD.untilListen);
  Atomics.store(shared.control, WORD.anyRemoved, 1);
  if (kept?.again === true) takeLeftEvents({ shared, blocks, pages, map }, kept.eventsAt);
}

/** Tells the other threads of it, and people. */
export function announceMemory(
  { guest, shared, emit, announceMemory: announce }: IncomingContext,
  { blocks, pageData, foreign }: ArrivingMemory,
  facts: StreamFacts,
): void {
  shared.counters.set(DEST.totalPages, totalPages(blocks));
  emit({ kind: "guest", blocks });
  announce({
    ...facts,
    blocks,
    pages: pageData,
    map: (foreign?.map ?? AddressMap.ofBlocks(blocks)).shared,
    foreign: foreign !== undefined,
    eventsAt: foreign?.kept?.eventsAt,
    needs: guest.needs ?? 0,
    sinkData: guest.sinkData(),
  });
}
