/** Failures of keeping an index, by what the operator can do about them. */
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { PostcopyError } from "../../util/errors.ts";
import { failedCallOf } from "../../util/failed-call.ts";

/**
 * NO_SPACE or CANNOT_STORE for a call that failed with `errno` (0: it wrote nothing). `place` says
 * which file it was about.
 */
export function storeFailure(call: string, errno: number, place: string): PostcopyError {
  const cause = new SyscallError(call, errno === 0 ? ERRNO.EIO : errno, place);
  if (errno === ERRNO.ENOSPC || errno === ERRNO.EDQUOT || errno === ERRNO.EFBIG) {
    const message = "There is no space left for the index, or for the pages that were unpacked";
    const hint = "free space beside the file; or set TMPDIR, if the file's directory is read-only";
    return new PostcopyError("NO_SPACE", message, { cause, hint });
  }
  const hint = "copy the file to another disk, or set TMPDIR, if its directory is read-only";
  return new PostcopyError("CANNOT_STORE", "The index cannot be written", { cause, hint });
}

/** The same for what a function of node:fs threw; anything else is given back as it is. */
export function storeFailureOf(thrown: unknown, place: string): unknown {
  const failed = failedCallOf(thrown);
  return failed === undefined ? thrown : storeFailure(failed.call, failed.errno, place);
}
