/**
 * Who connects and is not the one, with nothing decided: another may still come. Whoever dribbles must not
 * hold the door while the source waits before it. A VMM waits, and goes on waiting, for the source that
 * has its memory: before LISTEN one that is lost, or has another guest, is not worth its life.
 */
import { ChannelError } from "../channel/channel.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";
import type { IncomingContext } from "./context.ts";
import type { IncomingMemory } from "./incoming-memory.ts";
import { WORD } from "./shared.ts";

export interface TurnedAway {
  turnedAway: PostcopyError;
}

/** Whether an error says no more than that somebody is turned away. */
export function isNobody(
  error: unknown,
  { guest, othersMayCome }: IncomingContext,
  memory: Pick<IncomingMemory, "isKnown" | "isTakenOver">,
): error is PostcopyError {
  if (!othersMayCome || !(error instanceof PostcopyError)) return false;
  if (guest.memory !== "foreign") return !memory.isKnown && error.code === "PEER_SLOW";
  if (memory.isTakenOver) return false;
  if (error instanceof StreamError || error instanceof ChannelError) return true;
  // A list of more memory than this host can keep count of.
  return error.code === "NO_MEMORY";
}

/** Takes back what the other threads were told of him. */
export function forgetChoices(control: Int32Array<SharedArrayBuffer>): void {
  const { pageRuns, packedRuns, returnPathOpen, packageWhole } = WORD;
  const { urgentChosen, urgentToken, pushAwaited } = WORD;
  const told = [pageRuns, packedRuns, returnPathOpen, packageWhole];
  for (const word of [...told, urgentChosen, urgentToken, pushAwaited])
    Atomics.store(control, word, 0);
  Atomics.store(control, WORD.pushChannels, 1);
}
