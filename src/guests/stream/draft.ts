/**
 * The file in which an index is made: beside the file that it is of, where it gets its name once it
 * is complete; or, where that directory cannot be written to, one without a name, which is gone
 * with the process.
 */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { tryLock } from "../../../syscalls/flock.ts";
import { PostcopyError } from "../../util/errors.ts";
import { syncDirectory } from "../../util/durable.ts";

const { O_RDWR, O_CREAT } = constants;
/** A guest's memory holds its secrets: nobody but the owner reads it. */
const MODE = 0o600;
/** For what may be as large as the guest: /tmp is memory on many hosts. */
const LARGE_TEMPORARY = "/var/tmp";

/** The index of a saved file. */
export function indexPath(file: string): string {
  return `${file}.postcopy-index`;
}

/** Where it lies while it is made. */
export function draftPath(file: string): string {
  return `${indexPath(file)}.tmp`;
}

/** What an index is made in. Plain data. */
export interface Draft {
  fd: number;
  /** Where it lies for now; undefined if it has no name. */
  path: string | undefined;
  /** The same, for people. */
  place: string;
}

/** @throws PostcopyError CANNOT_STORE when there is no place for one. */
export function openDraft(file: string): Draft {
  const path = draftPath(file);
  const fd = openLocked(path);
  if (fd !== undefined) return { fd, path, place: path };
  const directory = temporaryDirectory();
  try {
    const temporary = mkdtempSync(join(directory, "postcopy-"));
    try {
      const unnamed = openSync(join(temporary, "index"), "wx+", MODE);
      return { fd: unnamed, path: undefined, place: `a temporary file in ${directory}` };
    } finally {
      rmSync(temporary, { recursive: true });
    }
  } catch (cause) {
    const message = `No index can be made beside ${file}, nor in ${directory}`;
    const hint = "set TMPDIR to a directory that can be written to";
    throw new PostcopyError("CANNOT_STORE", message, { cause, hint });
  }
}

/**
 * Opens the draft of that name for us alone; undefined where the directory does not let us, or
 * another process is at work on it.
 */
function openLocked(path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, O_RDWR | O_CREAT, MODE);
  } catch {
    return undefined;
  }
  try {
    // Between opening and locking, whoever had the lock may have given the file its final name.
    if (tryLock(fd) && fstatSync(fd).ino === statSync(path).ino) {
      ftruncateSync(fd, 0);
      return fd;
    }
  } catch {
    // No locks there, or it is gone: without the name it can be done as well.
  }
  closeSync(fd);
  return undefined;
}

function temporaryDirectory(): string {
  if (process.env["TMPDIR"] !== undefined) return tmpdir();
  try {
    accessSync(LARGE_TEMPORARY, constants.W_OK);
    return LARGE_TEMPORARY;
  } catch {
    return tmpdir();
  }
}

/** Gives a complete and durable draft its name. What fails here costs the next use a pass. */
export function publishDraft(draft: Draft, file: string): boolean {
  if (draft.path === undefined) return false;
  try {
    renameSync(draft.path, indexPath(file));
    syncDirectory(dirname(file));
    return true;
  } catch {
    return false;
  }
}

/** Removes a draft that will not be an index. */
export function dropDraft(draft: Draft): void {
  closeSync(draft.fd);
  if (draft.path !== undefined) rmSync(draft.path, { force: true });
}
