/**
 * Sources that a hand-made destination holds where a test wants them: after its answer to the
 * hello, or in the middle of the package, which does not fit into the socket of somebody who has
 * ceased to read.
 */
import { waitUntil } from "./deadline.ts";
import type { HandMadePeer } from "./hand-made-peer.ts";

/**
 * A guest with 512 KiB of device state (its table of versions), hardly any memory that is touched,
 * and so little time to live on that a test does not wait for it. A unix socket takes 208 KiB.
 */
export const STUCK_GUEST = "stress:size=512MiB,zero=0.999,hot=0.001,rate=1MiB/s,duration=100ms";
export const STUCK_PAGES = 131_072;

/** Header, configuration and first commands: what a source sends before it waits for an answer. */
const OPENING_BYTES = 60;
/** The value of the source's first PING, which a QEMU echoes unread. */
const HELLO = 0x5043_0001;

/**
 * Answers the source's hello as a QEMU does, so that there will be no urgent channel. With
 * `andStopReading` nothing is read any more before the source hears of it.
 */
export async function answerAsQemu(
  peer: HandMadePeer,
  options: { andStopReading?: boolean } = {},
): Promise<void> {
  await waitUntil(() => peer.received.length > OPENING_BYTES, "the opening of a stream");
  if (options.andStopReading === true) peer.stopReading();
  peer.answer({ kind: "pong", value: HELLO });
}
