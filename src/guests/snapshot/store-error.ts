/** Failures of writing a snapshot, by what the operator can do about them. */
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { PostcopyError } from "../../util/errors.ts";

/** NO_SPACE: the file system of the directory, or the quota there, is used up. */
export function noSpace(directory: string, cause?: unknown): PostcopyError {
  const message = `There is no space left for the snapshot in ${directory}`;
  const hint = "free space there, or keep it in another directory";
  return new PostcopyError("NO_SPACE", message, { cause, hint });
}

/** NO_SPACE or CANNOT_STORE for a call on a file of the snapshot that failed with `errno`. */
export function storeError(
  directory: string,
  file: string,
  call: string,
  errno: number,
): PostcopyError {
  const cause = new SyscallError(call, errno, `${directory}/${file}`);
  const full = errno === ERRNO.ENOSPC || errno === ERRNO.EDQUOT;
  if (full) return noSpace(directory, cause);
  return new PostcopyError("CANNOT_STORE", `${file} cannot be stored in ${directory}`, { cause });
}
