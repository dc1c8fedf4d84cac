/** A channel to read from, and what a test sends it. */
import { Channel } from "../../src/channel/channel.ts";
import type { Descriptors } from "./descriptors.ts";

/** A channel over one end of a pair of sockets; it gives up after some seconds. */
export function channelOver(descriptors: Descriptors, bufferBytes = 4096) {
  const [fd, peerFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the source", bufferBytes });
  channel.timeoutMs = 8_000;
  return { channel, peerFd, stopFd };
}

/** Bytes that differ from their neighbours and from those a page later. */
export function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >>> 8) * 3) & 0xff);
}
