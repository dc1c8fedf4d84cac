/** What all file descriptors share: close(2), poll(2), fcntl(2), eventfd(2). */
import { ERRNO } from "./abi/errno.ts";
import { EVENTFD, FCNTL, POLL } from "./abi/file.ts";
import { check } from "./error.ts";
import { mapScratch, putU64 } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

const POLLFD_BYTES = 8;
/** Most descriptors that one PollSet watches. */
const POLL_DESCRIPTORS_MAX = 128;
const NANOSECONDS_PER_MS = 1e6;

/** close(2). A descriptor is closed by exactly one owner; EBADF is a programmer's error. */
export function closeDescriptor(fd: number): void {
  check("close", syscall(NR.close, fd), `fd ${fd}`);
}

/**
 * Puts the file of `by` under the number `fd`, whose own file is closed (dup3(2)): whoever knows the
 * number goes on with the new file. `by` is closed.
 */
export function replaceDescriptor(fd: number, by: number): void {
  const flags = FCNTL.O_CLOEXEC;
  check("dup3", syscall(NR.dup3, by, fd, flags), `fd ${by} as ${fd}`);
  closeDescriptor(by);
}

/** Keeps a descriptor from programs that this process starts. */
export function setCloseOnExec(fd: number): void {
  const result = syscall(NR.fcntl, fd, FCNTL.F_SETFD, FCNTL.FD_CLOEXEC);
  check("fcntl", result, `fd ${fd}, F_SETFD`);
}

/** Makes reads and writes of `fd` return EAGAIN instead of blocking, or undoes that. */
export function setNonBlocking(fd: number, on: boolean): void {
  const flags = check("fcntl", syscall(NR.fcntl, fd, FCNTL.F_GETFL), `fd ${fd}, F_GETFL`);
  const wanted = on ? flags | FCNTL.O_NONBLOCK : flags & ~FCNTL.O_NONBLOCK;
  check("fcntl", syscall(NR.fcntl, fd, FCNTL.F_SETFL, wanted), `fd ${fd}, F_SETFL`);
}

/**
 * A reusable list of descriptors for poll(2). Slots are numbered from 0 in the order of `add`; a
 * slot set to -1 is ignored by the kernel. One thread uses a PollSet.
 */
export class PollSet {
  readonly #scratch = mapScratch(POLL_DESCRIPTORS_MAX * POLLFD_BYTES + 16);
  readonly #timeoutAt = POLL_DESCRIPTORS_MAX * POLLFD_BYTES;
  #count = 0;
  /** Slots up to the last one that is not idle: the kernel need not look at more. */
  #used = 0;

  /** Adds a descriptor and returns its slot. */
  add(fd: number, events: number): number {
    if (this.#count === POLL_DESCRIPTORS_MAX) throw new RangeError("PollSet is full");
    const slot = this.#count++;
    this.set(slot, fd, events);
    return slot;
  }

  /** Replaces what a slot watches; fd -1 makes it idle. */
  set(slot: number, fd: number, events: number): void {
    const at = slot * POLLFD_BYTES;
    this.#scratch.view.setInt32(at, fd, true);
    this.#scratch.view.setInt16(at + 4, events, true);
    this.#scratch.view.setInt16(at + 6, 0, true);
    if (fd >= 0) this.#used = Math.max(this.#used, slot + 1);
    else if (slot + 1 === this.#used) this.#shorten();
  }

  #shorten(): void {
    const { view } = this.#scratch;
    while (this.#used > 0 && view.getInt32((this.#used - 1) * POLLFD_BYTES, true) < 0) this.#used--;
  }

  /**
   * Waits until a slot is ready or the time is over (milliseconds, fractions allowed; Infinity
   * waits for ever). Returns the number of ready slots; 0 after a time-out or a signal.
   */
  wait(timeoutMs: number): number {
    let timeout = 0;
    if (timeoutMs !== Infinity) {
      const whole = Math.floor(timeoutMs / 1000);
      putU64(this.#scratch.view, this.#timeoutAt, whole);
      const rest = Math.floor((timeoutMs - whole * 1000) * NANOSECONDS_PER_MS);
      putU64(this.#scratch.view, this.#timeoutAt + 8, rest);
      timeout = this.#scratch.address + this.#timeoutAt;
    }
    const result = syscall(NR.ppoll, this.#scratch.address, this.#used, timeout, 0, 8);
    if (result === -ERRNO.EINTR) return 0;
    return check("ppoll", result, `${this.#used} descriptors`);
  }

  /** The events of a slot that the last `wait` found: POLL bits, 0 for none. */
  ready(slot: number): number {
    return this.#scratch.view.getInt16(slot * POLLFD_BYTES + 6, true);
  }
}

/**
 * An eventfd(2): a flag that one thread raises and others see in poll(2). It stays raised: it says
 * "stop" or "look here" for good, so nobody reads it.
 */
export function makeEventDescriptor(): number {
  const flags = EVENTFD.EFD_CLOEXEC | EVENTFD.EFD_NONBLOCK;
  return check("eventfd2", syscall(NR.eventfd2, 0, flags));
}

let one: { address: number } | undefined;

/** Raises an eventfd: every poll(2) on it returns at once from now on. */
export function raiseEventDescriptor(fd: number): void {
  if (one === undefined) {
    const scratch = mapScratch(8);
    putU64(scratch.view, 0, 1);
    one = scratch;
  }
  check("write", syscall(NR.write, fd, one.address, 8), `eventfd ${fd}`);
}

export { POLL };
