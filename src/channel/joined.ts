/**
 * The first byte on a connection to a bridge (src/tls/), which says that the connection behind it
 * stands: connecting to the bridge itself always succeeds.
 */
import { POLL } from "../../syscalls/descriptor.ts";
import { readInto } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { PostcopyError } from "../util/errors.ts";
import { waitReady } from "./channel.ts";

/** That byte. */
export const JOINED = 1;

let scratch: Scratch | undefined;

/**
 * Waits for it. Why it does not come is known to the bridge, which tells main.
 * @throws PostcopyError CANNOT_CONNECT; StoppedError.
 */
export function awaitJoined(fd: number, stopFd: number, peer: string, timeoutMs: number): void {
  const { address, bytes } = (scratch ??= mapScratch(1));
  const came = waitReady(fd, POLL.POLLIN, stopFd, timeoutMs) && readInto(fd, address, 1) === 1;
  if (came && bytes[0] === JOINED) return;
  throw new PostcopyError("CANNOT_CONNECT", `There is no connection to ${peer}`);
}
