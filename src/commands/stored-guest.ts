/** A guest that was kept, as `source` sends it: opened, and its working set read and recorded. */
import { memoryWorkingSetPath, openMemory } from "../guests/firecracker/open.ts";
import { workingSetPath } from "../guests/snapshot/layout.ts";
import { openSnapshot } from "../guests/snapshot/open.ts";
import { readWorkingSet, recordRequests } from "../guests/stored/working-set.ts";
import { openSourceGuest, sourceBlocks } from "../guests/registry.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PostcopyError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { bytesSchema } from "../util/schemas.ts";
import type { Output } from "./common.ts";
import { filesIdentity, streamIdentity } from "./guest-identity.ts";
import type { StoredWord } from "./guest-words.ts";
import type { OpenedFiles, StoredGuest } from "./opened-guest.ts";
import { openSavedStream } from "./saved-stream.ts";
import { optionalFlag, switchFlag } from "./strict.ts";
import type { SourceEnd, SourceJob } from "./source-job.ts";

/** What the operator says of it: the values of STORED_FLAGS. */
export interface StoredOptions {
  noRecord: boolean;
  noReplay: boolean;
  /** Bytes of pages that are replayed at most; undefined: all that were recorded. */
  replayLimit: number | undefined;
}

export const STORED_FLAGS = {
  "no-record": switchFlag("Do not record which pages the guest asks for"),
  "no-replay": switchFlag("Do not push first what a kept guest asked for the last times"),
  "replay-limit": optionalFlag(bytesSchema, {
    valueHint: "SIZE",
    description: "Most memory that is pushed first, e.g. 256MiB (default: all that was recorded)",
  }),
} as const;

/** The job of sending one. */
export type StoredJob = Omit<SourceJob, "guest" | "options"> &
  StoredGuest & { options: SourceJob["options"] & StoredOptions };

/** @throws UsageError when there is none, PostcopyError when it is damaged. */
export async function openStoredGuest(
  word: StoredWord,
  options: StoredOptions,
  output: Output,
): Promise<StoredGuest> {
  // Before it is opened: what is changed meanwhile is another one, or is noticed by who reads it.
  const ofFiles = filesIdentity(word);
  const opened = await openFiles(word, options, output);
  const { guest } = opened;
  const ofPages = guest.kind === "stream" ? streamIdentity(guest.stream) : undefined;
  return { ...opened, identity: ofPages ?? ofFiles };
}

async function openFiles(
  word: StoredWord,
  options: StoredOptions,
  output: Output,
): Promise<OpenedFiles> {
  switch (word.kind) {
    case "stream":
      return await openSavedStream(word.file, output);
    case "snapshot": {
      const { directory } = word;
      const snapshot = openSnapshot(directory);
      const guestText = `snapshot of ${snapshot.machineType} in ${directory}`;
      const opened = { guest: { kind: "snapshot", snapshot }, guestText } as const;
      return withWorkingSet(opened, workingSetPath(directory), options, output);
    }
    case "firecracker": {
      const { files } = word;
      const memory = openMemory(files);
      const opened = {
        guest: { kind: "firecracker", memory },
        guestText: memoryText(files),
      } as const;
      return withWorkingSet(opened, memoryWorkingSetPath(files), options, output);
    }
  }
}

function memoryText(files: readonly string[]): string {
  return `memory of a Firecracker microVM in ${files.join(", ")}`;
}

/** The guest with what is recorded of it at `recordPath`. */
function withWorkingSet(
  opened: Pick<StoredGuest, "guest" | "guestText">,
  recordPath: string,
  { noRecord, noReplay, replayLimit = Infinity }: StoredOptions,
  output: Output,
): OpenedFiles {
  const recorded = readWorkingSet(recordPath, sourceBlocks(opened.guest));
  if (recorded === "damaged") {
    output.warn("BAD_WORKING_SET", `The recorded working set ${recordPath} is not valid`);
  }
  const workingSet = recorded === "damaged" ? undefined : recorded;
  const replayed = noReplay ? 0 : Math.floor(replayLimit / TARGET_PAGE_SIZE);
  return {
    ...opened,
    recordPath,
    workingSet,
    replay: workingSet?.subarray(0, replayed) ?? new Uint32Array(),
    watch: workingSet === undefined && !noRecord,
  };
}

/** The same for a QEMU. @throws PostcopyError NOT_FOR_QEMU for a guest that none can run. */
export async function openForQemu(
  word: StoredWord,
  options: StoredOptions,
  output: Output,
): Promise<StoredGuest> {
  const stored = await openStoredGuest(word, options, output);
  const { receiver } = openSourceGuest(stored.guest);
  if (receiver === undefined) return stored;
  const message = `No QEMU can run the ${stored.guestText}`;
  throw new PostcopyError("NOT_FOR_QEMU", message, { hint: receiver });
}

/**
 * Records what the guest asked for, for the next restore. It is a help and no more: where it cannot
 * be written (read-only media), the restore was none the worse.
 */
export function recordWorkingSet(
  job: Pick<StoredJob, "guest" | "recordPath" | "resume"> & { options: StoredOptions },
  { failure, requested }: Pick<SourceEnd, "failure" | "requested">,
): void {
  // What was asked for before is not known to who sends the rest only.
  if (job.resume === true) return;
  if (job.options.noRecord || failure !== undefined || requested.length === 0) return;
  const { recordPath } = job;
  if (recordPath === undefined) return;
  try {
    recordRequests(recordPath, sourceBlocks(job.guest), requested);
  } catch (error) {
    log.debug(`The working set was not recorded as ${recordPath}: ${String(error)}`);
  }
}
