/** Descriptors that a test opens and must not leave behind. */
import { fstatSync } from "node:fs";
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
    const near = this.add(makeSocket("inet"));
    startConnect(near, localAddress(listener));
    const poll = new PollSet();
    poll.add(listener, POLL.POLLIN);
    if (poll.wait(CONNECT_LIMIT_MS) === 0) throw new Error("no connection over the loopback");
    return [near, this.add(acceptConnection(listener))];
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
