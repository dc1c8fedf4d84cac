/**
 * The listening end: opening the socket (on main, so that "address in use" is known at once) and
 * finding the migration among those who connect (in the incoming thread).
 */
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { check, SyscallError } from "../../syscalls/error.ts";
import { POLL, PollSet, closeDescriptor } from "../../syscalls/descriptor.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import {
  acceptConnection,
  bindAndListen,
  localAddress,
  makeSocket,
  peekBytes,
  startConnect,
  tuneTcp,
} from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { MULTIFD_MAGIC, STREAM_MAGIC } from "../stream/constants.ts";
import { PostcopyError } from "../util/errors.ts";
import { formatSocketPeer } from "./address.ts";
import { StoppedError, waitReady } from "./channel.ts";

const BACKLOG = 16;
/** Connections that may wait unclassified: a silent one could be the migration, or anybody. */
const CANDIDATES_MAX = 16;
const MAGIC_BYTES = 4;
const DRIBBLE_PAUSE_MS = 1;
/** The other end will send no more. */
const HUNG_UP = POLL.POLLRDHUP | POLL.POLLHUP | POLL.POLLERR;

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
      if (address.family === "unix") removeStaleSocket(address.path);
      bindAndListen(fd, address, BACKLOG);
      if (address.family === "unix") chmodSync(address.path, 0o600);
      return { fd, address: localAddress(fd) };
    } catch (error) {
      closeDescriptor(fd);
      failure ??= error;
    }
  }
  const where = addresses.map(formatSocketPeer).join(", ");
  const inUse = failure instanceof SyscallError && failure.code === "EADDRINUSE";
  throw new PostcopyError("CANNOT_LISTEN", `Cannot listen on ${where}`, {
    cause: failure,
    ...(inUse ? { hint: "another program has it: choose another port, or 0 for a free one" } : {}),
  });
}

function removeStaleSocket(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isSocket()) return;
  const fd = makeSocket("unix");
  try {
    // Any other answer comes from somebody who listens: EAGAIN is a full backlog.
    const refused = startConnect(fd, { family: "unix", path }) === -ERRNO.ECONNREFUSED;
    if (refused) unlinkSync(path);
  } finally {
    closeDescriptor(fd);
  }
}

/** Told of connections that are turned away: where nothing fails but somebody should know. */
export type Warn = (message: string) => void;

/** The migration's main connection, and those that had said nothing when it was found. */
export interface Accepted {
  main: number;
  /** Silent connections: one of them may be the urgent channel of the same source. */
  others: number[];
}

/**
 * Accepts connections until one begins as a migration stream does. Whoever sends something else is
 * turned away with a warning; whoever stays silent is kept aside, because QEMU 7.2 opens its
 * preempt channel, on which it sends nothing, beside the main one and in any order.
 */
export function acceptMigration(listenFd: number, stopFd: number, warn: Warn): Accepted {
  const poll = new PollSet();
  poll.add(stopFd, POLL.POLLIN);
  poll.add(listenFd, POLL.POLLIN);
  const slots = Array.from({ length: CANDIDATES_MAX }, () => poll.add(-1, 0));
  const candidates: number[] = [];
  const peek = mapScratch(MAGIC_BYTES);
  for (;;) {
    slots.forEach((slot, i) => poll.set(slot, candidates[i] ?? -1, POLL.POLLIN | POLL.POLLRDHUP));
    poll.wait(Infinity);
    if (poll.ready(0) !== 0) {
      candidates.forEach(closeDescriptor);
      throw new StoppedError();
    }
    const events = candidates.map((fd, i) => ({ fd, events: poll.ready(slots[i] ?? 0) }));
    for (const { fd, events: found } of events.filter((each) => each.events !== 0)) {
      const verdict = judge(fd, peek, (found & HUNG_UP) !== 0);
      if (verdict === "migration") {
        return { main: fd, others: candidates.filter((other) => other !== fd) };
      }
      if (verdict === "undecided") {
        // A peer that dribbles: look again a little later instead of spinning on a ready socket.
        waitReady(stopFd, POLL.POLLIN, stopFd, DRIBBLE_PAUSE_MS);
        continue;
      }
      if (verdict === "stranger") {
        warn("A connection that is not a QEMU migration stream was turned away");
      }
      candidates.splice(candidates.indexOf(fd), 1);
      closeDescriptor(fd);
    }
    if (poll.ready(1) !== 0) takeConnection(listenFd, candidates, warn);
  }
}

/**
 * Whether multifd channels of a QEMU wait beside its main connection: connections that begin with
 * multifd's magic, among those that were kept aside and those that nobody has accepted yet. Other
 * connections that wait are turned away.
 */
export function multifdWaits(listenFd: number, others: readonly number[]): boolean {
  const peek = mapScratch(MAGIC_BYTES);
  const isMultifd = (fd: number): boolean =>
    peekBytes(fd, peek.address, MAGIC_BYTES) === MAGIC_BYTES &&
    peek.view.getUint32(0) === MULTIFD_MAGIC;
  let found = others.some(isMultifd);
  for (let fd = acceptConnection(listenFd); fd >= 0; fd = acceptConnection(listenFd)) {
    if (isMultifd(fd)) found = true;
    closeDescriptor(fd);
  }
  return found;
}

type Verdict =
  | "migration"
  /** The first bytes of the magic, and more may come. */
  | "undecided"
  | "stranger"
  /** Closed or reset before it said anything. */
  | "gone";

/** Looks at the first bytes of a connection, without taking them. */
function judge(fd: number, peek: Scratch, hungUp: boolean): Verdict {
  const got = peekBytes(fd, peek.address, MAGIC_BYTES);
  if (got === -ERRNO.EAGAIN) return "undecided";
  if (got <= 0) return "gone";
  if (!isMagicPrefix(peek.bytes, got)) return "stranger";
  if (got === MAGIC_BYTES) return "migration";
  return hungUp ? "stranger" : "undecided";
}

function isMagicPrefix(bytes: Uint8Array, count: number): boolean {
  for (let i = 0; i < count; i++) {
    if (bytes[i] !== ((STREAM_MAGIC >>> (24 - 8 * i)) & 0xff)) return false;
  }
  return true;
}

function takeConnection(listenFd: number, candidates: number[], warn: Warn): void {
  const fd = acceptConnection(listenFd);
  // Most failures mean that whoever connected has gone; these would fail again for ever.
  if (fd === -ERRNO.EMFILE || fd === -ERRNO.ENFILE) check("accept4", fd, `fd ${listenFd}`);
  if (fd < 0) return;
  if (candidates.length === CANDIDATES_MAX) {
    warn(`More than ${CANDIDATES_MAX} silent connections: one was turned away`);
    closeDescriptor(fd);
    return;
  }
  if (localAddress(fd).family !== "unix") tuneTcp(fd);
  candidates.push(fd);
}
