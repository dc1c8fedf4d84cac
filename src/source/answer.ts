/** Waiting for what the return-path thread will read: one patience for every answer. */
import { ChannelError } from "../channel/channel.ts";
import { formatDuration } from "../util/duration.ts";
import { checkPeer } from "./refusal.ts";
import { checkStop } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** How often a wait for another thread looks whether it should stop. */
const STOP_CHECK_MS = 200;

/**
 * Waits until `arrived`, which waits for at most so many milliseconds, says that the answer is there.
 * `failing` says what the destination did not do: "answered no PING".
 * @throws ChannelError PEER_SILENT after `limitMs`; StoppedError; whatever the peer's end comes to.
 */
export function awaitAnswer(
  shared: SourceShared,
  arrived: (ms: number) => boolean,
  limitMs: number,
  failing: string,
): void {
  const deadline = performance.now() + limitMs;
  while (!arrived(STOP_CHECK_MS)) {
    checkStop(shared);
    checkPeer(shared);
    if (performance.now() < deadline) continue;
    const time = formatDuration(limitMs);
    throw new ChannelError("PEER_SILENT", `The destination ${failing} for ${time}`);
  }
}
