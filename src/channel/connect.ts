/** The connecting end. Waits a while for a peer that is not there yet: who starts first is luck. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { POLL, closeDescriptor } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import {
  formatSocketAddress,
  makeSocket,
  startConnect,
  takeSocketError,
} from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { PostcopyError } from "../util/errors.ts";
import { formatSocketPeer } from "./address.ts";
import { waitReady } from "./channel.ts";
import { tuneConnection } from "./tune.ts";

/** Pause between two tries; the peer may be a process that is just being started. */
export const RETRY_PAUSE_MS = 50;
/** How long the one try without patience may take: a SYN that is lost is sent again after 1 s. */
const SINGLE_TRY_MS = 3000;

/** Whom to connect to, and with how much patience. */
export interface Way {
  /** The first that answers is taken. */
  addresses: readonly SocketAddress[];
  /** For how long to try again, in milliseconds; 0: there is one try. */
  patienceMs: number;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
}

/**
 * Connects to the first address that answers, trying again while there is patience; `waiting` is
 * called once when the first try has failed.
 * @returns a connected non-blocking descriptor.
 * @throws PostcopyError CANNOT_CONNECT with the last reason; StoppedError.
 */
export function connectTo(way: Way, stopFd: number, waiting: () => void = () => {}): number {
  const { addresses, patienceMs, linkTimeoutMs } = way;
  const deadline = performance.now() + patienceMs;
  const leastMs = shortestTryMs(way);
  let told = false;
  for (;;) {
    let failure: SyscallError | undefined;
    for (const address of addresses) {
      const left = Math.max(leastMs, deadline - performance.now());
      const result = tryConnect(address, stopFd, left, linkTimeoutMs);
      if (typeof result === "number") return result;
      failure = result;
    }
    if (performance.now() + RETRY_PAUSE_MS >= deadline) {
      throw cannotConnect(addresses, failure);
    }
    if (!told) waiting();
    told = true;
    waitReady(stopFd, POLL.POLLIN, stopFd, RETRY_PAUSE_MS);
  }
}

/** The time that a try has however little patience is left, in milliseconds. */
export function shortestTryMs({ patienceMs, linkTimeoutMs }: Omit<Way, "addresses">): number {
  return patienceMs > 0 ? RETRY_PAUSE_MS : Math.min(SINGLE_TRY_MS, linkTimeoutMs);
}

/** The error of a source that nobody has answered. */
export function cannotConnect(
  addresses: readonly SocketAddress[],
  failure: Error | undefined,
): PostcopyError {
  const where = addresses.map(formatSocketPeer).join(", ");
  return new PostcopyError("CANNOT_CONNECT", `Cannot connect to ${where}`, {
    cause: failure,
    hint: "start the receiving end first, or raise --connect-timeout",
  });
}

function tryConnect(
  address: SocketAddress,
  stopFd: number,
  timeoutMs: number,
  linkTimeoutMs: number,
): number | SyscallError {
  const fd = makeSocket(address.family);
  try {
    const errno = connectWithin(fd, address, stopFd, timeoutMs);
    if (errno === 0) {
      tuneConnection(fd, linkTimeoutMs);
      return fd;
    }
    closeDescriptor(fd);
    return new SyscallError("connect", errno, formatSocketAddress(address));
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/**
 * The errno that connecting ended with, 0 for success. EAGAIN, which a unix socket with a full
 * backlog answers, is an end too: nothing is under way then, although the socket polls writable.
 */
function connectWithin(
  fd: number,
  address: SocketAddress,
  stopFd: number,
  timeoutMs: number,
): number {
  const errno = -startConnect(fd, address);
  if (errno !== ERRNO.EINPROGRESS) return errno;
  return waitReady(fd, POLL.POLLOUT, stopFd, timeoutMs) ? takeSocketError(fd) : ERRNO.ETIMEDOUT;
}
