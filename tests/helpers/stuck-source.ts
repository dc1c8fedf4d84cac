/**
 * Sources that a destination in the hands of a test holds where the test wants them: after the
 * answer to their hello, or (with a DeafDestination) in the middle of the package.
 */
import { waitUntil } from "./deadline.ts";
import type { HandMadePeer } from "./hand-made-peer.ts";
import type { SourceRole } from "./migration.ts";

/**
 * A guest with 512 KiB of device state (its table of versions), hardly any memory that is touched,
 * and so little time to live on that a test does not wait for it. A unix socket takes 208 KiB.
 */
export const STUCK_GUEST = "stress:size=512MiB,zero=0.999,hot=0.001,rate=1MiB/s,duration=100ms";
export const STUCK_PAGES = 131_072;

/** Header, configuration and first commands: what a source sends before it waits for an answer. */
const OPENING_BYTES = 60;
/** The value of the source's first PING, which a QEMU echoes unread. */
export const HELLO = 0x5043_0001;

/** Answers the source's hello as a QEMU does, so that there will be no urgent channel. */
export async function answerAsQemu(peer: HandMadePeer): Promise<void> {
  await waitUntil(() => peer.received.length > OPENING_BYTES, "the opening of a stream");
  peer.answer({ kind: "pong", value: HELLO });
}

/** Waits until a source sits in the middle of the package: so it still is half a second later. */
export async function waitUntilStuck(source: SourceRole): Promise<void> {
  const first = await source.event("progress", ({ phase }) => phase === "device");
  await source.event("progress", ({ phase, elapsedMs }) => {
    return phase === "device" && elapsedMs > first.elapsedMs;
  });
}
