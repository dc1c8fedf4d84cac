/** The directory of a snapshot before it is written: ours alone, and without another one in it. */
import { openSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { tryLock } from "../../../syscalls/flock.ts";
import { makeDirectory } from "../../util/durable.ts";
import { UsageError } from "../../util/errors.ts";
import { isSnapshotFile, MANIFEST_FILE } from "./layout.ts";

/**
 * Makes the directory ready to receive a guest: creates it, or clears away what an earlier attempt
 * left there in part. It is locked (flock(2)) for as long as this process lives, so that no other
 * one clears away what is arriving here. Returns whether there was such a rest.
 * @throws UsageError when another process receives there, or when it holds a whole snapshot or
 * files that are not ours.
 */
export function prepareDirectory(directory: string): boolean {
  let locked: boolean;
  let names: string[];
  try {
    makeDirectory(directory);
    // Never closed: the lock goes with the descriptor.
    locked = tryLock(openSync(directory, "r"));
    names = readdirSync(directory);
  } catch (cause) {
    const message = `The snapshot directory ${directory} cannot be used`;
    throw new UsageError("BAD_DIRECTORY", message, { cause });
  }
  if (!locked) {
    throw new UsageError("SNAPSHOT_BUSY", `Another process is receiving a guest in ${directory}`, {
      hint: "choose another directory, or wait until that one has ended",
    });
  }
  if (names.includes(MANIFEST_FILE)) {
    throw new UsageError("SNAPSHOT_EXISTS", `${directory} already holds a snapshot`, {
      hint: "choose another directory, or remove that one",
    });
  }
  const foreign = names.find((name) => !isSnapshotFile(name));
  if (foreign !== undefined) {
    throw new UsageError("BAD_DIRECTORY", `${directory} holds other files (${foreign})`, {
      hint: "choose an empty or a new directory",
    });
  }
  for (const name of names) rmSync(join(directory, name));
  return names.length > 0;
}

/** Bytes that the files of a snapshot take on the disk; holes take none. */
export function diskBytes(directory: string): number {
  const block = 512;
  return readdirSync(directory).reduce((sum, name) => {
    return sum + statSync(join(directory, name)).blocks * block;
  }, 0);
}
