/** A guest that was kept, as `source` sends it: opened, and its working set read and recorded. */
import { openSnapshot } from "../guests/snapshot/open.ts";
import { readWorkingSet, writeWorkingSet } from "../guests/snapshot/working-set.ts";
import type { SourceGuestData } from "../guests/registry.ts";
import { log } from "../util/log.ts";
import type { Output } from "./common.ts";
import type { SourceEnd, SourceJob } from "./run-source.ts";

/** What a SourceJob needs to know of a kept guest. */
export interface StoredGuest {
  guest: Extract<SourceGuestData, { kind: "snapshot" }>;
  guestText: string;
  workingSet: Uint32Array | undefined;
}

/** The job of sending one. */
export type StoredJob = Omit<SourceJob, "guest" | "options"> &
  StoredGuest & { options: SourceJob["options"] & { noRecord: boolean } };

/** @throws UsageError when there is none, PostcopyError DAMAGED_SNAPSHOT. */
export function openStoredGuest(directory: string, output: Output): StoredGuest {
  const snapshot = openSnapshot(directory);
  const recorded = readWorkingSet(directory, snapshot.blocks);
  if (recorded === "damaged") {
    output.warn("BAD_WORKING_SET", `The recorded working set in ${directory} is not valid`);
  }
  return {
    guest: { kind: "snapshot", snapshot },
    guestText: `snapshot of ${snapshot.machineType} in ${directory}`,
    workingSet: recorded === "damaged" ? undefined : recorded,
  };
}

/**
 * Records what the guest asked for, for the next restore. It is a help and no more: where it cannot
 * be written (read-only media), the restore was none the worse.
 */
export function recordWorkingSet(job: StoredJob, { failure, requested }: SourceEnd): void {
  if (job.options.noRecord || failure !== undefined || requested.length === 0) return;
  const { directory, blocks } = job.guest.snapshot;
  try {
    writeWorkingSet(directory, blocks, requested);
  } catch (error) {
    log.debug(`The working set was not recorded in ${directory}: ${String(error)}`);
  }
}
