/** Descriptors that a test opens and must not leave behind. */
import { fstatSync } from "node:fs";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import {
  closeDescriptor,
  makeEventDescriptor,
  POLL,
  PollSet,
  setNonBlocking,
} from "../../syscalls/descriptor.ts";
import {
  acceptConnection,
  bindAndListen,
  localAddress,
  makeSocket,
  makeSocketPair,
  startConnect,
} from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";

const CONNECT_LIMIT_MS = 10_000;

export class Descriptors implements Disposable {
  readonly #open: number[] = [];

  /** Takes a descriptor into care. */
  add(fd: number): number {
    this.#open.push(fd);
    return fd;
  }

  /** Two connected sockets that do not block. */
  pair(): [number, number] {
    const fds = makeSocketPair();
    for (const fd of fds) setNonBlocking(this.add(fd), true);
    return fds;
  }

  /** The same over TCP. */
  tcpPair(): [number, number] {
    const listener = this.add(makeSocket("inet"));
    bindAndListen(listener, { family: "inet", host: "127.0.0.1", port: 0 }, 1);
    return [this.connect(localAddress(listener)), this.add(acceptConnection(listener))];
  }

  /** A connection to where somebody listens; it stands in the backlog until it is taken. */
  connect(address: SocketAddress): number {
    const fd = this.add(makeSocket(address.family));
    const result = startConnect(fd, address);
    if (result !== 0 && result !== -ERRNO.EINPROGRESS) throw new Error(`no connection: ${result}`);
    const poll = new PollSet();
    poll.add(fd, POLL.POLLOUT);
    if (poll.wait(CONNECT_LIMIT_MS) === 0) throw new Error("no connection in time");
    return fd;
  }

  /** An eventfd, not raised. */
  event(): number {
    return this.add(makeEventDescriptor());
  }

  /** Closes one now. */
  close(fd: number): void {
    this.#open.splice(this.#open.indexOf(fd), 1);
    closeDescriptor(fd);
  }

  /** Leaves one to somebody else, who closes it. */
  release(fd: number): number {
    this.#open.splice(this.#open.indexOf(fd), 1);
    return fd;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#open.splice(0)) closeDescriptor(fd);
  }
}

/** Whether a descriptor of this process is open. */
export function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}
