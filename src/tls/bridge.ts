/**
 * What both bridges have: a bridge joins each TLS connection with one on a private unix socket, where
 * the threads of a migration read and write as on any other. It lives in an event loop of its own.
 */
import type { TLSOptions } from "bun";
import { SyscallError } from "../../syscalls/error.ts";
import { formatSocketAddress, limitUnsent, tuneTcp } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import type { AllowRule } from "../channel/allow.ts";
import { UNSENT_BYTES_MAX } from "../channel/tune.ts";
import type { ErrorRecord } from "../util/errors.ts";
import type { Credentials } from "./credentials.ts";
import type { BridgeSocket } from "./joint.ts";

/** The only version that is spoken, by the library's number and name. */
const TLS_1_3 = { number: 0x0304, name: "TLSv1.3" } as const;
/** How long a handshake may take, from the connection on. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
/** How long what is under way may take to go out when a bridge is closed. */
export const DRAIN_TIMEOUT_MS = 5000;

/** What a bridge is told to do: to listen or to connect, to show that it is there, at last to close. */
export type BridgeTask =
  | {
      kind: "listen";
      credentials: Credentials;
      /** After how long a link on which nothing arrives is dead. */
      linkTimeoutMs: number;
      /** The first that works is listened on. */
      addresses: SocketAddress[];
      allow: AllowRule[];
      /** Whom each TLS connection is joined with: the path of a unix socket. */
      target: string;
    }
  | {
      kind: "connect";
      credentials: Credentials;
      /** After how long a link on which nothing arrives is dead. */
      linkTimeoutMs: number;
      addresses: SocketAddress[];
      /** Whose certificate is expected there: a name or an address. */
      hostname: string;
      /** How long it is tried until somebody is there the first time. */
      patienceMs: number;
      /** Where the unix socket listens that is joined. */
      path: string;
    }
  | { kind: "answer" }
  | { kind: "close" };

/** Where a bridge listens; of other tasks nothing. */
export type BridgeResult = SocketAddress | undefined;

export type BridgeNews =
  /** A connection stands, with this end. */
  | { kind: "secured"; peer: string }
  | { kind: "waiting" }
  /** Somebody was turned away, before a migration. */
  | { kind: "warning"; message: string }
  /** Why a connection of the migration was not made, or broke. */
  | { kind: "failed"; error: ErrorRecord };

export type TellBridge = (news: BridgeNews) => void;

/** One direction of a bridge at work. */
export interface Bridge {
  /** Where it listens. */
  readonly address: SocketAddress;
  /** Lets what is under way go out, and ends. */
  close(): Promise<void>;
}

/** What is asked of the other end: a certificate of our authority, and TLS 1.3. */
export function tlsOptions(credentials: Credentials): TLSOptions {
  const { end, authority, certificate, key, revoked } = credentials;
  // The number is what Bun takes, although its types do not have it.
  const version: object = { minVersion: TLS_1_3.number };
  return {
    ca: authority,
    cert: certificate,
    key,
    ...(revoked === undefined ? {} : { crl: revoked }),
    ...(end === "server" ? { requestCert: true } : {}),
    rejectUnauthorized: true,
    ...version,
  };
}

/** What the library says of a finished handshake is believed only if all of it is said. */
export function isTrusted(socket: BridgeSocket): boolean {
  return socket.authorized && socket.getTLSVersion() === TLS_1_3.name;
}

/** A failed call of Bun's as one of our own would tell it; others as they are. */
export function systemError(call: string, error: Error, address: SocketAddress): Error {
  const number = "errno" in error ? Number(error.errno) : NaN;
  if (!Number.isInteger(number)) return error;
  return new SyscallError(call, Math.abs(number), formatSocketAddress(address));
}

/** The options of every TCP connection of a migration. */
export function tune(socket: BridgeSocket, linkTimeoutMs: number): void {
  // Bun's sockets have it, although its types do not.
  const { fd } = socket as unknown as { fd: number };
  tuneTcp(fd, linkTimeoutMs);
  // Requested pages wait behind what is unsent, in the kernel or in this loop.
  limitUnsent(fd, UNSENT_BYTES_MAX);
}
