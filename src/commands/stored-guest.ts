/** A guest that was kept, as `source` sends it: opened, and its working set read and recorded. */
import { openSavedStream } from "./saved-stream.ts";
import type { GuestWord } from "./guest-words.ts";
import { openSnapshot } from "../guests/snapshot/open.ts";
import { readWorkingSet, writeWorkingSet } from "../guests/snapshot/working-set.ts";
import type { SourceGuestData } from "../guests/registry.ts";
import { log } from "../util/log.ts";
import type { Output } from "./common.ts";
import type { SourceEnd, SourceJob } from "./run-source.ts";

/** What a SourceJob needs to know of a kept guest. */
export interface StoredGuest {
  guest: Extract<SourceGuestData, { kind: "snapshot" | "stream" }>;
  guestText: string;
  workingSet: Uint32Array | undefined;
}

/** The job of sending one. */
export type StoredJob = Omit<SourceJob, "guest" | "options"> &
  StoredGuest & { options: SourceJob["options"] & { noRecord: boolean } };

/** A GUEST word that names one. */
export type StoredWord = Extract<GuestWord, { kind: "snapshot" | "stream" }>;

/** @throws UsageError when there is none, PostcopyError when it is damaged. */
export async function openStoredGuest(word: StoredWord, output: Output): Promise<StoredGuest> {
  return word.kind === "stream"
    ? await openSavedStream(word.file, output)
    : openKeptSnapshot(word.directory, output);
}

function openKeptSnapshot(directory: string, output: Output): StoredGuest {
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
  // What was asked for before is not known to who sends the rest only.
  if (job.resume === true) return;
  if (job.options.noRecord || failure !== undefined || requested.length === 0) return;
  if (job.guest.kind !== "snapshot") return;
  const { directory, blocks } = job.guest.snapshot;
  try {
    writeWorkingSet(directory, blocks, requested);
  } catch (error) {
    log.debug(`The working set was not recorded in ${directory}: ${String(error)}`);
  }
}
