/** From a PEER word to something the threads can use: resolved addresses or a descriptor. */
import { rmSync } from "node:fs";
import { closeDescriptor, setNonBlocking } from "../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { formatPeer, formatSocketPeer, parsePeer, resolvePeer } from "../channel/address.ts";
import type { Peer } from "../channel/address.ts";
import { openListener } from "../channel/listen.ts";
import type { AllowRule } from "../channel/allow.ts";
import type { Arrival, Route } from "../threads/tasks.ts";
import { TlsBridge } from "../threads/tls-bridge.ts";
import type { BridgeListener } from "../threads/tls-bridge.ts";
import { readCredentials } from "../tls/credentials.ts";
import { UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { fromText } from "../util/schemas.ts";
import type { SecurityOptions } from "./security.ts";

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
export interface OpenedRoute {
  route: Route;
  /** What does so over TLS; whoever opened the route closes it. */
  bridge: TlsBridge | undefined;
}

/** Opens the way to a peer; `waiting` is called where TLS finds nobody there yet. */
export async function openRoute(
  peer: Peer,
  options: SecurityOptions & { connectTimeout: number; linkTimeout: number },
  waiting: () => void,
): Promise<OpenedRoute> {
  const { insecure, tls, tlsHostname } = options;
  const { connectTimeout: patienceMs, linkTimeout: linkTimeoutMs } = options;
  if (peer.kind === "exec") {
    return { route: { kind: "descriptor", fd: openCommand(peer.command) }, bridge: undefined };
  }
  if (peer.kind === "fd") {
    return { route: { kind: "descriptor", fd: openDescriptor(peer.fd) }, bridge: undefined };
  }
  const addresses = await resolvePeer(peer, insecure || tls !== undefined);
  if (tls === undefined || peer.kind !== "tcp") {
    return { route: { kind: "connect", addresses, patienceMs }, bridge: undefined };
  }
  const credentials = readCredentials(tls, "client");
  const bridge = new TlsBridge({ waiting });
  const hostname = tlsHostname ?? peer.host;
  try {
    await bridge.connect({ addresses, credentials, hostname, patienceMs, linkTimeoutMs });
  } catch (error) {
    await bridge.close();
    throw error;
  }
  const route: Route = { kind: "connect", addresses: [bridge.local], patienceMs, joined: true };
  return { route, bridge };
}

/** How the destination is reached, and what to call it. */
export interface OpenedArrival {
  arrival: Arrival;
  /** The address as bound: a port of 0 is replaced by the real one. */
  text: string;
  /** Who comes there, where that is known. */
  source?: string;
  /** The socket file to remove in the end. */
  path: string | undefined;
  /** What listens there over TLS; whoever opened the arrival closes it. */
  bridge: TlsBridge | undefined;
}

/** How the destination is reached, and by whom. */
export interface ArrivalOptions extends Pick<SecurityOptions, "tls" | "insecure"> {
  allow: AllowRule[];
  /** After how long a link on which nothing arrives is dead, in milliseconds. */
  linkTimeout: number;
}

/** Opens it; `warn` hears of those who are turned away by TLS. */
export async function openArrival(
  peer: Peer,
  options: ArrivalOptions,
  warn: (message: string) => void,
): Promise<OpenedArrival> {
  const { insecure, tls, allow, linkTimeout: linkTimeoutMs } = options;
  const text = formatPeer(peer);
  if (peer.kind === "tcp" && tls !== undefined) {
    const addresses = await resolvePeer(peer, true);
    return await openTlsArrival({ addresses, allow, linkTimeoutMs }, tls, { warn });
  }
  switch (peer.kind) {
    case "exec": {
      const fd = openCommand(peer.command);
      return { arrival: { kind: "descriptor", fd }, text, path: undefined, bridge: undefined };
    }
    case "fd": {
      const fd = openDescriptor(peer.fd);
      return { arrival: { kind: "descriptor", fd }, text, path: undefined, bridge: undefined };
    }
    default: {
      const { fd, address } = openListener(await resolvePeer(peer, insecure));
      const path = address.family === "unix" ? address.path : undefined;
      const arrival = { kind: "listen", fd, allow } as const;
      return { arrival, text: formatSocketPeer(address), path, bridge: undefined };
    }
  }
}

/** Takes back what `openArrival` made beside the descriptor, which is the crew's to close. */
export async function closeArrival({ path, bridge }: OpenedArrival): Promise<void> {
  if (path !== undefined) removeSocket(path);
  await bridge?.close();
}

/** Removes the file of our socket; that it is gone already is no failure of a migration. */
function removeSocket(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    log.warn(`The socket ${path} could not be removed: ${String(error)}`);
  }
}

/** The threads listen on a private socket, and TLS in front of it: it knows who may connect. */
async function openTlsArrival(
  options: { addresses: SocketAddress[]; allow: AllowRule[]; linkTimeoutMs: number },
  tls: string,
  listener: BridgeListener,
): Promise<OpenedArrival> {
  const credentials = readCredentials(tls, "server");
  const bridge = new TlsBridge(listener);
  let fd = -1;
  try {
    ({ fd } = openListener([bridge.local]));
    const address = await bridge.listen({ ...options, credentials });
    const arrival = { kind: "listen", fd, allow: [] } as const;
    return { arrival, text: formatSocketPeer(address), path: undefined, bridge };
  } catch (error) {
    if (fd >= 0) closeDescriptor(fd);
    await bridge.close();
    throw error;
  }
}
