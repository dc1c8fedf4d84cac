/** What an ioctl of userfaultfd says that is a failure, by name. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { check } from "../../syscalls/error.ts";
import type { RamBlock } from "../ram/block.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";

/** The code of a VmmGoneError, which may have come from another thread. */
export const VMM_GONE = "VMM_GONE";

/** Nobody has the memory any more into which pages were placed. */
export class VmmGoneError extends PostcopyError {
  constructor() {
    super(VMM_GONE, "The VMM whose memory is filled has ended");
  }

  override get exitCode(): number {
    return EXIT.guestEnded;
  }
}

/** Throws where a page could not be placed as its VMM has ended. @throws VmmGoneError. */
export function checkVmm(result: number): void {
  if (result === -ERRNO.ESRCH) throw new VmmGoneError();
}

/**
 * Throws for a negative result that is no EEXIST, EAGAIN or the like: the caller has seen to those.
 * @throws VmmGoneError; SyscallError, with `details`.
 */
export function checkPlaced(result: number, details: string): void {
  checkVmm(result);
  check("ioctl", result, details);
}

/** A VMM's memory in which nothing can be placed: what of it is not there reads as zeros. */
export function notRegistered(address: number, offset: number, { name }: RamBlock): PostcopyError {
  const where = `0x${address.toString(16)} (${offset} of ${name})`;
  const what = `The VMM's memory at ${where} is not registered with its userfaultfd`;
  return new PostcopyError("NOT_REGISTERED", what, {
    hint: "register all regions; ask for UFFD_FEATURE_EVENT_UNMAP and _REMAP to unmap or move memory",
  });
}
