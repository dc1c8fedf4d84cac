/** The directory of a snapshot before it is written: ours alone, and without another one in it. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { isLocked, tryLock } from "../../../syscalls/flock.ts";
import { makeDirectory } from "../../util/durable.ts";
import { UsageError } from "../../util/errors.ts";
import { ARRIVAL_FILE, isSnapshotFile, LOCK_FILE, MANIFEST_FILE } from "./layout.ts";

/** A guest's memory holds its secrets: nobody but the owner reads it. */
const FILE_MODE = 0o600;

/** Who only looks whether a guest is being received holds the lock for a moment. */
const LOCK_TRIES = 5;
const LOCK_PAUSE_MS = 20;

/** What a writer finds in a directory that is its own. */
export type DirectoryContent = "nothing" | "half a guest";

/**
 * Makes the directory ready to receive a guest: creates it, or clears away what an earlier attempt
 * left there in part. It is locked (flock(2)) for as long as this process lives, so that no other
 * one clears away what is arriving here. Returns whether there was such a rest.
 * @throws UsageError when another process receives there, or when it holds a whole snapshot, one
 * that can still become whole, or files that are not ours.
 */
export function prepareDirectory(directory: string): DirectoryContent {
  const other = "choose another directory, or remove that one";
  const names = takeDirectory(directory, () => makeDirectory(directory), other);
  if (names.includes(ARRIVAL_FILE)) {
    const message = `${directory} holds a guest that was taken over in part`;
    throw new UsageError("SNAPSHOT_UNFINISHED", message, {
      hint: "if its source still waits, --resume takes the rest; else remove the directory",
    });
  }
  for (const name of names) rmSync(join(directory, name));
  return names.length > 0 ? "half a guest" : "nothing";
}

/**
 * Takes the directory of a guest that another process took over, for the rest of it.
 * @throws UsageError as above, and when there is none.
 */
export function reopenDirectory(directory: string): void {
  const whole = "it is whole, so its source has nothing more to send: end that one";
  const names = takeDirectory(directory, () => {}, whole);
  if (names.includes(ARRIVAL_FILE)) return;
  const message = `No guest was taken over in ${directory} of which the rest could come`;
  const hint = "without --resume it is made ready for a new one";
  throw new UsageError("NOTHING_TO_RESUME", message, { hint });
}

/**
 * Locks a directory for this process, and gives the names of the snapshot files in it. `whole` says
 * what to do where a snapshot is there.
 */
function takeDirectory(directory: string, make: () => void, whole: string): string[] {
  let locked: boolean;
  let names: string[];
  try {
    make();
    accessSync(directory, constants.W_OK | constants.X_OK);
    locked = lockDirectory(directory);
    names = readdirSync(directory).filter((name) => name !== LOCK_FILE);
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
    const message = `${directory} already holds a snapshot`;
    throw new UsageError("SNAPSHOT_EXISTS", message, { hint: whole });
  }
  const foreign = names.find((name) => !isSnapshotFile(name));
  if (foreign === undefined) return names;
  throw new UsageError("BAD_DIRECTORY", `${directory} holds other files (${foreign})`, {
    hint: "choose an empty or a new directory",
  });
}

/** Its descriptor is never closed: the lock goes with the process, however that ends. */
function lockDirectory(directory: string): boolean {
  let fd = openSync(directory, "r");
  for (let tries = 1; ; tries++) {
    try {
      if (tryLock(fd)) return true;
    } catch (error) {
      // NFS locks only what is open for writing, which a directory never is.
      if (!(error instanceof SyscallError) || error.errno !== ERRNO.EBADF) throw error;
      closeSync(fd);
      fd = openSync(join(directory, LOCK_FILE), "a", FILE_MODE);
      continue;
    }
    if (tries >= LOCK_TRIES) {
      closeSync(fd);
      return false;
    }
    Bun.sleepSync(LOCK_PAUSE_MS);
  }
}

/** Whether a guest was taken over there whose rest could come. */
export function holdsArrival(directory: string): boolean {
  const there = (name: string): boolean => existsSync(join(directory, name));
  return there(ARRIVAL_FILE) && !there(MANIFEST_FILE);
}

/** The guest was given back to its source after all: there is no rest that could come. */
export function forgetArrival(directory: string): void {
  rmSync(join(directory, ARRIVAL_FILE), { force: true });
}

/** What is in a directory without a manifest, for who wanted to read a snapshot there. */
export function whatIsInstead(directory: string): string | undefined {
  let names: string[];
  try {
    names = readdirSync(directory);
    const fd = openSync(directory, "r");
    try {
      if (isLocked(fd)) return "another process is receiving a guest there: wait until it is whole";
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
  if (!names.includes(ARRIVAL_FILE)) return undefined;
  return `it holds a part of a guest: postcopy dest --guest snapshot:${directory} --listen PEER --resume takes the rest`;
}

/** Bytes that the files of a snapshot take on the disk; holes take none. */
export function diskBytes(directory: string): number {
  const block = 512;
  return readdirSync(directory).reduce((sum, name) => {
    return sum + statSync(join(directory, name)).blocks * block;
  }, 0);
}
