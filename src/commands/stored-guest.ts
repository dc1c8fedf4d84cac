/** A guest that was kept, as `source` sends it: opened, and its working set read and recorded. */
import { openSavedStream } from "./saved-stream.ts";
import type { GuestWord } from "./guest-words.ts";
import { openSnapshot } from "../guests/snapshot/open.ts";
import { readWorkingSet, recordRequests } from "../guests/snapshot/working-set.ts";
import type { SourceGuestData } from "../guests/registry.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { log } from "../util/log.ts";
import type { Output } from "./common.ts";
import type { SourceEnd, SourceJob } from "./run-source.ts";

/** What a SourceJob needs to know of a kept guest. */
export interface StoredGuest {
  guest: Extract<SourceGuestData, { kind: "snapshot" | "stream" }>;
  guestText: string;
  workingSet: Uint32Array | undefined;
  replay: Uint32Array;
  watch: boolean;
}

/** What the operator says of it. */
export interface StoredOptions {
  noRecord: boolean;
  noReplay: boolean;
  /** Bytes of pages that are replayed at most; undefined: all that were recorded. */
  replayLimit: number | undefined;
}

/** The job of sending one. */
export type StoredJob = Omit<SourceJob, "guest" | "options"> &
  StoredGuest & { options: SourceJob["options"] & StoredOptions };

/** A GUEST word that names one. */
export type StoredWord = Extract<GuestWord, { kind: "snapshot" | "stream" }>;

/** @throws UsageError when there is none, PostcopyError when it is damaged. */
export async function openStoredGuest(
  word: StoredWord,
  options: StoredOptions,
  output: Output,
): Promise<StoredGuest> {
  return word.kind === "stream"
    ? await openSavedStream(word.file, output)
    : openKeptSnapshot(word.directory, options, output);
}

function openKeptSnapshot(
  directory: string,
  { noRecord, noReplay, replayLimit = Infinity }: StoredOptions,
  output: Output,
): StoredGuest {
  const snapshot = openSnapshot(directory);
  const recorded = readWorkingSet(directory, snapshot.blocks);
  if (recorded === "damaged") {
    output.warn("BAD_WORKING_SET", `The recorded working set in ${directory} is not valid`);
  }
  const workingSet = recorded === "damaged" ? undefined : recorded;
  const replayed = noReplay ? 0 : Math.floor(replayLimit / TARGET_PAGE_SIZE);
  return {
    guest: { kind: "snapshot", snapshot },
    guestText: `snapshot of ${snapshot.machineType} in ${directory}`,
    workingSet,
    replay: workingSet?.subarray(0, replayed) ?? new Uint32Array(),
    watch: workingSet === undefined && !noRecord,
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
    recordRequests(directory, blocks, requested);
  } catch (error) {
    log.debug(`The working set was not recorded in ${directory}: ${String(error)}`);
  }
}
