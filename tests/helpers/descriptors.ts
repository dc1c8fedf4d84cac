/** Descriptors that a test opens and must not leave behind. */
import { fstatSync } from "node:fs";
import { closeDescriptor, makeEventDescriptor, setNonBlocking } from "../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../syscalls/socket.ts";

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
