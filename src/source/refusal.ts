/** Why the destination does not have the guest, as far as it has said so. */
import { ChannelError } from "../channel/channel.ts";
import { SAME_FILES } from "../stream/identity.ts";
import { SHUT_STATUS } from "../stream/return-path.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";
import { IDENTITY_ANSWER, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/**
 * Looks whether the destination is still there, from a thread that only writes.
 * @throws PostcopyError of `refusalOf`, ChannelError PEER_CLOSED.
 */
export function checkPeer(shared: SourceShared): void {
  if (!shared.finished.isSet) return;
  const refusal = refusalOf(shared);
  if (refusal !== undefined) throw refusal;
  if (Atomics.load(shared.control, WORD.shutStatus) === 0) return;
  throw new ChannelError("PEER_CLOSED", "The destination went away");
}

/** The guest ran at the destination, and is no more: nobody waits there for the rest of it. */
export class GuestGoneError extends PostcopyError {
  /** `inVmm`: in a VMM, whose memory the destination filled. */
  constructor(inVmm: boolean) {
    if (inVmm) super("VMM_GONE", "The VMM whose memory the destination filled is no more");
    else super("GUEST_GONE", "The guest ran at the destination, which has given it up");
  }

  override get exitCode(): number {
    return EXIT.guestEnded;
  }
}

/** Code of `otherGuest`. */
export const OTHER_GUEST = "OTHER_GUEST";

/** Why the destination does not have the guest, if it has said so (SHUT with a status). */
export function refusalOf({ control }: SourceShared): PostcopyError | undefined {
  const status = Atomics.load(control, WORD.shutStatus);
  const answer = Atomics.load(control, WORD.identityAnswer);
  // It may close the link behind that without another word.
  if (answer === IDENTITY_ANSWER.other) return otherGuest();
  if (status <= 0) return undefined;
  if (status === SHUT_STATUS.guestGone) {
    if (answer === IDENTITY_ANSWER.awaited) return undefined;
    // Only who fills a VMM's memory says which host pages that has.
    return new GuestGoneError(Atomics.load(control, WORD.hostPageBytes) > 0);
  }
  return new PostcopyError("PEER_FAILED", "The destination refused the guest, or gave it up");
}

/** The destination has pages of another guest, and goes on waiting for that one. */
export function otherGuest(): PostcopyError {
  return new PostcopyError(OTHER_GUEST, "The destination waits for another guest", {
    hint: `only the guest that it has a part of goes on there; ${SAME_FILES}`,
  });
}
