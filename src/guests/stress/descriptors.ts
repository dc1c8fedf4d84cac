/**
 * Pages that the device state points at, as the rings of a network card or a disk do: the loader
 * reads them in full while it loads the state, when they may not have arrived. The loading thread
 * then waits in a page fault that only the listen thread can end: the case for which QEMU's
 * postcopy has a listen thread at all.
 */
import { GuestMemoryError, examineMismatch } from "./mismatch.ts";
import { pageOfRank, planWorker } from "./operation.ts";
import type { StressParameters } from "./parameters.ts";
import { checkPage } from "./pattern.ts";
import type { StressWorld } from "./setup.ts";

/** Pages that each worker contributes: enough that some are dirty at any switchover. */
const DESCRIPTORS_EACH = 8;

/** A page of guest memory and what the loader must find there. */
export interface PageDescriptor {
  page: number;
  version: number;
}

/** Chooses the pages: some of each worker's hottest, which are the likeliest to be still owed. */
export function chooseDescriptors(
  parameters: StressParameters,
  versions: Uint32Array,
): PageDescriptor[] {
  const descriptors: PageDescriptor[] = [];
  for (let worker = 0; worker < parameters.workers; worker++) {
    const plan = planWorker(parameters, worker);
    for (let rank = 0; rank < Math.min(plan.pages, DESCRIPTORS_EACH); rank++) {
      const page = pageOfRank(plan, rank);
      descriptors.push({ page, version: versions[page]! });
    }
  }
  return descriptors;
}

/** Reads every descriptor's page in full; throws GuestMemoryError at the first that is wrong. */
export function checkDescriptors(world: StressWorld, descriptors: readonly PageDescriptor[]): void {
  const { map, pattern } = world;
  for (const { page, version } of descriptors) {
    map.seek(page);
    const wordIndex = checkPage(pattern, map.window, map.word, page, version);
    if (wordIndex === -1) continue;
    const mismatch = examineMismatch(pattern, map, page, version, wordIndex);
    throw new GuestMemoryError("A page that the device state points at is wrong", mismatch);
  }
}
