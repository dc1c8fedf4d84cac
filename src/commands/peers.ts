/** From a PEER word to something the threads can use: resolved addresses or a descriptor. */
import { closeDescriptor, setNonBlocking } from "../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../syscalls/socket.ts";
import { formatPeer, formatSocketPeer, parsePeer, resolvePeer } from "../channel/address.ts";
import type { Peer } from "../channel/address.ts";
import { openListener } from "../channel/listen.ts";
import type { Arrival, Route } from "../threads/tasks.ts";
import { UsageError } from "../util/errors.ts";
import { fromText } from "../util/schemas.ts";

/** A PEER word on the command line. */
export const peerSchema = fromText(parsePeer);

/**
 * Runs the command of `exec:` with a socket as its standard input and output; returns our end. It
 * has a session of its own: a Ctrl-C is for us to answer, and must not end it under a guest's pages.
 */
function openCommand(command: string): number {
  const [ours, theirs] = makeSocketPair();
  Bun.spawn(["/bin/sh", "-c", command], {
    stdin: theirs,
    stdout: theirs,
    stderr: "inherit",
    detached: true,
  });
  closeDescriptor(theirs);
  setNonBlocking(ours, true);
  return ours;
}

function openDescriptor(fd: number): number {
  try {
    setNonBlocking(fd, true);
  } catch (cause) {
    throw new UsageError("BAD_PEER", `fd:${fd} is not an open descriptor`, { cause });
  }
  return fd;
}

/** How the source gets to its peer. */
export async function openRoute(peer: Peer, insecure: boolean, patienceMs: number): Promise<Route> {
  switch (peer.kind) {
    case "exec":
      return { kind: "descriptor", fd: openCommand(peer.command) };
    case "fd":
      return { kind: "descriptor", fd: openDescriptor(peer.fd) };
    default:
      return { kind: "connect", addresses: await resolvePeer(peer, insecure), patienceMs };
  }
}

/** How the destination is reached, and what to call it. */
export interface OpenedArrival {
  arrival: Arrival;
  /** The address as bound: a port of 0 is replaced by the real one. */
  text: string;
  /** The socket file to remove in the end. */
  path: string | undefined;
}

export async function openArrival(peer: Peer, insecure: boolean): Promise<OpenedArrival> {
  const text = formatPeer(peer);
  switch (peer.kind) {
    case "exec": {
      const fd = openCommand(peer.command);
      return { arrival: { kind: "descriptor", fd }, text, path: undefined };
    }
    case "fd": {
      const fd = openDescriptor(peer.fd);
      return { arrival: { kind: "descriptor", fd }, text, path: undefined };
    }
    default: {
      const { fd, address } = openListener(await resolvePeer(peer, insecure));
      const path = address.family === "unix" ? address.path : undefined;
      return { arrival: { kind: "listen", fd }, text: formatSocketPeer(address), path };
    }
  }
}
