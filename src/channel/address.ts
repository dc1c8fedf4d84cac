/**
 * PEER words, as QEMU writes migration addresses: `tcp:HOST:PORT`, `unix:PATH`, `exec:COMMAND`,
 * `fd:N`. Resolving names is done here too, before any thread starts.
 */
import { lookup } from "node:dns/promises";
import { BlockList, isIP } from "node:net";
import { UNIX_PATH_BYTES_MAX } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { PostcopyError, UsageError } from "../util/errors.ts";

/** A parsed PEER. */
export type Peer =
  | { kind: "tcp"; host: string; port: number }
  | { kind: "unix"; path: string }
  | { kind: "exec"; command: string }
  | { kind: "fd"; fd: number };

const PORT_MAX = 65535;

/** @throws UsageError that says what was wrong and shows a right one. */
export function parsePeer(text: string): Peer {
  const colon = text.indexOf(":");
  const kind = colon < 0 ? "" : text.slice(0, colon);
  const rest = text.slice(colon + 1);
  switch (kind) {
    case "tcp":
      return parseTcp(text, rest);
    case "unix":
      if (rest === "") break;
      if (Buffer.byteLength(rest) > UNIX_PATH_BYTES_MAX) {
        throw new UsageError(
          "BAD_PEER",
          `The socket path of ${text} is longer than ${UNIX_PATH_BYTES_MAX} bytes`,
        );
      }
      return { kind, path: rest };
    case "exec":
      if (rest === "") break;
      return { kind, command: rest };
    case "fd":
      if (!/^\d{1,6}$/.test(rest)) break;
      return { kind, fd: Number(rest) };
  }
  throw new UsageError("BAD_PEER", `"${text}" is not a peer address`, {
    hint: "use tcp:HOST:PORT, unix:PATH, exec:COMMAND or fd:NUMBER, e.g. tcp:127.0.0.1:4444",
  });
}

function parseTcp(text: string, rest: string): Peer {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(rest);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || !(port <= PORT_MAX)) {
    throw new UsageError("BAD_PEER", `"${text}" is not tcp:HOST:PORT`, {
      hint: "e.g. tcp:127.0.0.1:4444, or tcp:[::1]:4444; port 0 lets the kernel choose",
    });
  }
  if (host.includes("%")) {
    throw new UsageError("BAD_PEER", `"${text}" names a zone, which this program does not know`, {
      hint: "use an address that is unique without one, e.g. a global or unique local address",
    });
  }
  return { kind: "tcp", host, port };
}

/** The PEER word of a peer. */
export function formatPeer(peer: Peer): string {
  switch (peer.kind) {
    case "tcp":
      return `tcp:${peer.host.includes(":") ? `[${peer.host}]` : peer.host}:${peer.port}`;
    case "unix":
      return `unix:${peer.path}`;
    case "exec":
      return `exec:${peer.command}`;
    case "fd":
      return `fd:${peer.fd}`;
  }
}

/** The PEER word of a socket address. */
export function formatSocketPeer(address: SocketAddress): string {
  if (address.family === "unix") return formatPeer({ kind: "unix", path: address.path });
  return formatPeer({ kind: "tcp", host: address.host, port: address.port });
}

/** Loopback addresses in any of their texts ("::1" has several), IPv4-mapped ones included. */
const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

function isLoopback(host: string): boolean {
  return loopback.check(host, isIP(host) === 6 ? "ipv6" : "ipv4");
}

/**
 * The socket addresses of a tcp or unix peer. Guest memory travels in the clear over tcp, so an
 * address off the loopback is refused unless `insecure` says that this is wanted, or that it is not so.
 */
export async function resolvePeer(
  peer: Extract<Peer, { kind: "tcp" | "unix" }>,
  insecure: boolean,
): Promise<SocketAddress[]> {
  if (peer.kind === "unix") return [{ family: "unix", path: peer.path }];
  const found = await lookupAll(peer.host);
  const open = found.find((host) => !isLoopback(host));
  if (open !== undefined && !insecure) {
    throw new UsageError(
      "INSECURE",
      `${formatPeer(peer)} is not on the loopback: guest memory would travel unencrypted`,
      {
        hint: "add --insecure if the network is trusted, or --tls DIRECTORY, or tunnel it (ssh -L)",
      },
    );
  }
  return found.map((host) => ({
    family: isIP(host) === 6 ? "inet6" : "inet",
    host,
    port: peer.port,
  }));
}

async function lookupAll(host: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    const entries = await lookup(host, { all: true });
    return entries.map((entry) => entry.address);
  } catch (cause) {
    throw new PostcopyError("UNKNOWN_HOST", `The host name "${host}" cannot be resolved`, {
      cause,
    });
  }
}
