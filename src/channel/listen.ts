/**
 * The listening end: opening the socket, on main, so that "address in use" is known at once. Who
 * connects is looked at in accept.ts.
 */
import { fchmodSync, lstatSync, unlinkSync } from "node:fs";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { bindAndListen, localAddress, makeSocket, startConnect } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { PostcopyError } from "../util/errors.ts";
import { formatSocketPeer } from "./address.ts";

/**
 * Connections that may wait to be accepted. A QEMU opens all its multifd channels at once; and while
 * nobody is awaited anybody may connect, which must not bar the way for whoever is awaited next. The
 * kernel's own limit (net.core.somaxconn) is the same by default.
 */
export const BACKLOG = 4096;

/** A socket that listens. */
export interface Listener {
  fd: number;
  /** Where; with port 0 the port that the kernel chose. */
  address: SocketAddress;
}

/**
 * Opens a listening socket on the first address that works. A unix socket that nobody listens on
 * any more is replaced, and is made accessible to its owner only.
 */
export function openListener(addresses: readonly SocketAddress[]): Listener {
  let failure: unknown;
  for (const address of addresses) {
    const fd = makeSocket(address.family);
    try {
      if (address.family === "unix") prepareSocketFile(fd, address.path);
      bindAndListen(fd, address, BACKLOG);
      return { fd, address: localAddress(fd) };
    } catch (error) {
      closeDescriptor(fd);
      // Of several addresses of one name, that a program has one is what to do something about.
      if (failure === undefined || isInUse(error)) failure = error;
    }
  }
  throw cannotListen(addresses, failure);
}

/** The error of a listener that none of the addresses was for. */
export function cannotListen(addresses: readonly SocketAddress[], failure: unknown): PostcopyError {
  const where = addresses.map(formatSocketPeer).join(", ");
  return new PostcopyError("CANNOT_LISTEN", `Cannot listen on ${where}`, {
    cause: failure,
    ...(isInUse(failure) ? { hint: inUseHint(addresses) } : {}),
  });
}

function isInUse(failure: unknown): boolean {
  return failure instanceof SyscallError && failure.code === "EADDRINUSE";
}

/** What to do about a place that is not free. */
function inUseHint([address]: readonly SocketAddress[]): string {
  if (address?.family !== "unix") {
    return "another program has it: choose another port, or 0 for a free one";
  }
  const found = lstatSync(address.path, { throwIfNoEntry: false });
  return found?.isSocket() === false
    ? "what is there is no socket, and is left alone: choose another path, or remove it"
    : "another program listens there: choose another path, or end that one";
}

/** bind(2) makes the file with the mode of the socket, so that nobody else ever gets in. */
function prepareSocketFile(fd: number, path: string): void {
  removeStaleSocket(path);
  fchmodSync(fd, 0o600);
}

/** Whether there is a socket at a path that somebody listens on. */
export function someoneListens(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isSocket()) return false;
  const fd = makeSocket("unix");
  try {
    // Any other answer comes from somebody who listens: EAGAIN is a full backlog.
    return startConnect(fd, { family: "unix", path }) !== -ERRNO.ECONNREFUSED;
  } finally {
    closeDescriptor(fd);
  }
}

function removeStaleSocket(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isSocket() && !someoneListens(path)) unlinkSync(path);
}
