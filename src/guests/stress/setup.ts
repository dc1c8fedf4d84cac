/**
 * What all threads of a stress guest share, as plain data to post to them, and what one thread
 * makes of it. The versions and the control block are SharedArrayBuffers, the RAM blocks addresses.
 */
import { PageBitmap } from "../../ram/bitmap.ts";
import { StressControl, type WorkerProgress } from "./control.ts";
import { PageMap, type MemoryRange, type MemoryView } from "./page-map.ts";
import { blockLayout, pageCount, type StressParameters } from "./parameters.ts";
import { createPattern, type Pattern } from "./pattern.ts";

/** One guest in this process: structured-cloneable. */
export interface StressSetup {
  parameters: StressParameters;
  /** The RAM blocks of blockLayout, in its order, at their addresses in this process. */
  blocks: MemoryRange[];
  /** One version word (version.ts) a page. */
  versions: SharedArrayBuffer;
  /** One bit a page: its version has changed (changes.ts). */
  changed: SharedArrayBuffer;
  /** StressControl's buffer. */
  control: SharedArrayBuffer;
}

/** What one thread needs to look at the guest's pages. */
export interface StressWorld {
  parameters: StressParameters;
  map: PageMap;
  pattern: Pattern;
  versions: Uint32Array;
  changed: PageBitmap;
}

/** A guest that is not born yet: all memory zeros, workers to populate it. */
export function createStressSetup(
  parameters: StressParameters,
  blocks: MemoryRange[],
): StressSetup {
  assertBlocks(parameters, blocks);
  const versions = new SharedArrayBuffer(pageCount(parameters) * 4);
  const control = StressControl.create(parameters.workers, parameters.seed).buffer;
  const { shared: changed } = new PageBitmap(pageCount(parameters));
  return { parameters, blocks, versions, changed, control };
}

/** What of its device state (StressState) a guest goes on from. */
interface StressBeginning {
  parameters: StressParameters;
  /** One entry a worker. */
  progress: WorkerProgress[];
  versions: SharedArrayBuffer;
}

/** A guest that goes on from its device state, over memory that may still be arriving. */
export function continueStressSetup(state: StressBeginning, blocks: MemoryRange[]): StressSetup {
  assertBlocks(state.parameters, blocks);
  const control = StressControl.continue(state.progress).buffer;
  const { parameters, versions } = state;
  const { shared: changed } = new PageBitmap(pageCount(parameters));
  return { parameters, blocks, versions, changed, control };
}

/** One thread's own way into the guest: its windows over the memory and the page contents. */
export function openStressWorld(setup: StressSetup, view: MemoryView): StressWorld {
  return {
    parameters: setup.parameters,
    map: new PageMap(setup.blocks, view),
    pattern: createPattern(setup.parameters.seed),
    versions: new Uint32Array(setup.versions),
    changed: new PageBitmap(pageCount(setup.parameters), setup.changed),
  };
}

/** The caller allocates what blockLayout says; anything else is a mistake in the program. */
function assertBlocks(parameters: StressParameters, blocks: readonly MemoryRange[]): void {
  const wanted = blockLayout(parameters).map((block) => block.length);
  const given = blocks.map((block) => block.length);
  if (wanted.join() !== given.join()) {
    throw new RangeError(`RAM blocks of ${given.join()} bytes instead of ${wanted.join()}`);
  }
}
