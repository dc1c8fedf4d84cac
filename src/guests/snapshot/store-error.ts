/** Failures of writing a snapshot, by what the operator can do about them. */
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { PostcopyError } from "../../util/errors.ts";
import { failedCallOf } from "../../util/failed-call.ts";

/** What can be done where the file system takes nothing more, whatever it is. */
const HINTS: Partial<Record<number, string>> = {
  [ERRNO.EIO]: "its disk fails: keep the guest in another directory",
  [ERRNO.EROFS]: "make its file system writable, or keep the guest in another directory",
  [ERRNO.EACCES]: "make it writable for this user, or keep the guest in another directory",
  [ERRNO.EFBIG]: "its file system takes no file of that size: keep the guest in another directory",
};

/** NO_SPACE: the file system of the directory, or the quota there, is used up. */
export function noSpace(directory: string, cause?: unknown): PostcopyError {
  const message = `There is no space left for the snapshot in ${directory}`;
  const hint = "free space there, or keep it in another directory";
  return new PostcopyError("NO_SPACE", message, { cause, hint });
}

/**
 * NO_SPACE or CANNOT_STORE for a call on a file of the snapshot that failed with `errno` (0: it
 * wrote nothing). `details` are its other arguments, as text.
 */
export function storeError(
  directory: string,
  file: string,
  call: string,
  errno: number,
  details = "",
): PostcopyError {
  const failed = errno === 0 ? ERRNO.EIO : errno;
  const cause = new SyscallError(call, failed, `${directory}/${file}${details}`);
  const full = failed === ERRNO.ENOSPC || failed === ERRNO.EDQUOT;
  if (full) return noSpace(directory, cause);
  const hint = HINTS[failed] ?? "keep the guest in another directory";
  const message = `${file} cannot be stored in ${directory}`;
  return new PostcopyError("CANNOT_STORE", message, { cause, hint });
}

/** The same for what a function of node:fs threw; anything else is given back as it is. */
export function storeErrorOf(directory: string, file: string, thrown: unknown): unknown {
  const failed = failedCallOf(thrown);
  return failed === undefined ? thrown : storeError(directory, file, failed.call, failed.errno);
}
