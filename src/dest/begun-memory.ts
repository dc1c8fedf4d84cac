/**
 * A VMM's memory whose source was lost before LISTEN, and another one begins. The VMM runs on, and the
 * other threads follow what it does to its memory: the pages' state is theirs as well, and is gone on
 * with. What was placed is sent again, and found there; what was discarded is not forgotten.
 */
import type { RamBlock } from "../ram/block.ts";
import type { RamSetupBlock } from "../stream/ram-setup.ts";
import type { Mutex } from "../sync/mutex.ts";
import { StreamError } from "../util/errors.ts";
import type { ArrivingMemory } from "./arriving-memory.ts";
import type { ListedMemory } from "./ram-sections.ts";
import type { PageState } from "./shared.ts";

/** What is there of it. */
export interface BegunMemory {
  memory: ArrivingMemory;
  /** Where pages of the main stream go. */
  listed: ListedMemory;
  /** The number of RAM's section, which the listen thread knows. */
  ramSectionId: number;
}

/** What of a RAM block a source tells; its host pages are the VMM's. */
type ListedBlock = Pick<RamBlock, "name" | "length">;

/** @throws StreamError OTHER_BLOCKS for blocks that are not those of the source before. */
export function requireSameBlocks(
  before: readonly ListedBlock[],
  blocks: readonly ListedBlock[],
): void {
  const shape = (all: readonly ListedBlock[]): string =>
    JSON.stringify(all.map(({ name, length }) => [name, length]));
  if (shape(before) !== shape(blocks)) throw otherBlocks();
}

/** @throws StreamError OTHER_BLOCKS for a list that is not the one of the source before. */
export function requireSameList(
  { memory, ramSectionId }: BegunMemory,
  list: { setup: readonly RamSetupBlock[]; ramSectionId: number },
): void {
  requireSameBlocks(memory.blocks, list.setup);
  if (ramSectionId !== list.ramSectionId) throw otherBlocks();
}

function otherBlocks(): StreamError {
  const what =
    "The source has other RAM blocks than the one before, for which the VMM's memory was laid out";
  return new StreamError("OTHER_BLOCKS", what);
}

/** Nothing has come but what needs not come: what was discarded, and what the VMM has no memory for. */
export function forgetReceived({ received, removed, unpopulated }: PageState, lock: Mutex): void {
  // A VMM's guest may discard pages just now.
  lock.lock();
  try {
    for (const [index, bits] of received.entries()) {
      const discarded = removed[index];
      if (discarded !== undefined) bits.bytes.set(discarded.bytes);
      unpopulated[index]?.bytes.fill(0);
    }
  } finally {
    lock.unlock();
  }
}
