/**
 * userfaultfd(2) and its ioctls. Three ways lead to one; whichever the host allows is taken. Page
 * results that are not failures (EEXIST, EAGAIN, a partial copy) are numbers for the caller.
 */
import { readFileSync } from "node:fs";
import { ERRNO } from "./abi/errno.ts";
import { FCNTL } from "./abi/file.ts";
import { UFFD } from "./abi/userfaultfd.ts";
import { closeDescriptor } from "./descriptor.ts";
import { check, SyscallError } from "./error.ts";
import { getI64, getU64, mapScratch, putU64, scratchAt } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { readInto } from "./io.ts";
import { NR, syscall } from "./raw.ts";

/** How a userfaultfd was obtained. The last one does not see faults inside system calls. */
export type UserfaultWay = "system call" | "/dev/userfaultfd" | "user mode only";

const DEVICE = "/dev/userfaultfd";
const OPEN_FLAGS = FCNTL.O_CLOEXEC | FCNTL.O_NONBLOCK;

/** Tries one way: a descriptor or -errno. */
export function tryUserfaultWay(way: UserfaultWay): number {
  if (way === "system call") return syscall(NR.userfaultfd, OPEN_FLAGS);
  if (way === "user mode only") {
    return syscall(NR.userfaultfd, OPEN_FLAGS | UFFD.UFFD_USER_MODE_ONLY);
  }
  const scratch = mapScratch(DEVICE.length + 1);
  scratch.bytes.set(new TextEncoder().encode(DEVICE));
  const flags = FCNTL.O_RDWR | FCNTL.O_CLOEXEC;
  const device = syscall(NR.openat, FCNTL.AT_FDCWD, scratch.address, flags);
  if (device < 0) return device;
  const result = syscall(NR.ioctl, device, UFFD.USERFAULTFD_IOC_NEW, OPEN_FLAGS);
  closeDescriptor(device);
  return result;
}

/** The ways in the order they are tried. */
export const USERFAULT_WAYS: readonly UserfaultWay[] = [
  "system call",
  "/dev/userfaultfd",
  "user mode only",
];

/**
 * Why a thread waits: there is no page; there is one, in the page cache, and it is not mapped yet; or
 * it is write-protected.
 */
export type FaultCause = "missing" | "minor" | "write-protected";

/** A userfault event, decoded; addresses and lengths in bytes. */
export type UserfaultEvent =
  | { kind: "fault"; address: number; write: boolean; cause: FaultCause }
  | { kind: "remove"; start: number; end: number }
  | { kind: "unmap"; start: number; end: number }
  | { kind: "remap"; from: number; to: number; length: number }
  | { kind: "fork"; fd: number };

const MESSAGE_BYTES = 32;
/** Messages taken by one read(2). */
const MESSAGES_PER_READ = 64;
/** Room that a buffer of events has. */
export const EVENT_BUFFER_BYTES = MESSAGE_BYTES * MESSAGES_PER_READ;

/**
 * Decodes the struct uffd_msg at `at`; the only place that knows its union.
 * @throws Error for an event of a kind that was never asked for.
 */
export function decodeMessage(view: DataView, at: number): UserfaultEvent {
  const event = view.getUint8(at);
  switch (event) {
    case UFFD.UFFD_EVENT_PAGEFAULT: {
      const flags = getU64(view, at + 8);
      const write = (flags & UFFD.UFFD_PAGEFAULT_FLAG_WRITE) !== 0;
      return { kind: "fault", address: getU64(view, at + 16), write, cause: faultCause(flags) };
    }
    case UFFD.UFFD_EVENT_REMOVE:
      return { kind: "remove", start: getU64(view, at + 8), end: getU64(view, at + 16) };
    case UFFD.UFFD_EVENT_UNMAP:
      return { kind: "unmap", start: getU64(view, at + 8), end: getU64(view, at + 16) };
    case UFFD.UFFD_EVENT_REMAP: {
      const [from, to] = [getU64(view, at + 8), getU64(view, at + 16)];
      return { kind: "remap", from, to, length: getU64(view, at + 24) };
    }
    case UFFD.UFFD_EVENT_FORK:
      return { kind: "fork", fd: view.getInt32(at + 8, true) };
    default:
      throw new Error(`userfaultfd event 0x${event.toString(16)} was not asked for`);
  }
}

function faultCause(flags: number): FaultCause {
  if ((flags & UFFD.UFFD_PAGEFAULT_FLAG_WP) !== 0) return "write-protected";
  return (flags & UFFD.UFFD_PAGEFAULT_FLAG_MINOR) === 0 ? "missing" : "minor";
}

/**
 * One userfaultfd, used by one thread through this object; other threads attach to the same
 * descriptor with an object of their own (each has its own scratch memory).
 */
export class Userfault {
  readonly fd: number;
  readonly #scratch = mapScratch(64);
  readonly #events: Scratch;

  /** Events are read into EVENT_BUFFER_BYTES at `eventsAt`, where somebody else has them too. */
  constructor(fd: number, eventsAt?: number) {
    this.fd = fd;
    this.#events =
      eventsAt === undefined
        ? mapScratch(EVENT_BUFFER_BYTES)
        : scratchAt(eventsAt, EVENT_BUFFER_BYTES);
  }

  close(): void {
    closeDescriptor(this.fd);
  }

  /**
   * UFFDIO_API with the wanted features. Returns all features of the kernel.
   * @throws SyscallError EINVAL when the kernel lacks one of them.
   */
  enable(features: number): number {
    const { address, view } = this.#scratch;
    putU64(view, 0, UFFD.UFFD_API);
    putU64(view, 8, features);
    putU64(view, 16, 0);
    const details = `UFFDIO_API, features 0x${features.toString(16)}`;
    check("ioctl", syscall(NR.ioctl, this.fd, UFFD.UFFDIO_API, address), details);
    return getU64(view, 8);
  }

  /** UFFDIO_REGISTER; returns the bit set of ioctls that the range supports. */
  register(start: number, length: number, mode: number): number {
    const result = this.tryRegister(start, length, mode);
    check("ioctl", result, `UFFDIO_REGISTER, ${length} bytes, mode ${mode}`);
    return this.#scratch.view.getUint32(24, true);
  }

  /** The same: 0 or -errno, which is EINVAL where nothing is mapped, or what cannot be registered. */
  tryRegister(start: number, length: number, mode: number): number {
    this.#putRange(start, length, mode);
    return syscall(NR.ioctl, this.fd, UFFD.UFFDIO_REGISTER, this.#scratch.address);
  }

  /** UFFDIO_UNREGISTER: faults in the range are the kernel's again, and waiting ones are woken. */
  unregister(start: number, length: number): void {
    const result = this.tryUnregister(start, length);
    check("ioctl", result, `UFFDIO_UNREGISTER, ${length} bytes`);
  }

  /** The same: 0 or -errno, which is EINVAL where another process has unmapped its memory. */
  tryUnregister(start: number, length: number): number {
    this.#putRange(start, length, 0);
    return syscall(NR.ioctl, this.fd, UFFD.UFFDIO_UNREGISTER, this.#scratch.address);
  }

  /** UFFDIO_WAKE: threads that wait for the range look again. */
  wake(start: number, length: number): void {
    this.#putRange(start, length, 0);
    const result = syscall(NR.ioctl, this.fd, UFFD.UFFDIO_WAKE, this.#scratch.address);
    check("ioctl", result, `UFFDIO_WAKE, ${length} bytes`);
  }

  /**
   * UFFDIO_WRITEPROTECT of a whole range.
   * @throws SyscallError ENOENT where the range is not registered for it.
   */
  writeProtect(start: number, length: number): void {
    this.#putRange(start, length, UFFD.UFFDIO_WRITEPROTECT_MODE_WP);
    const result = syscall(NR.ioctl, this.fd, UFFD.UFFDIO_WRITEPROTECT, this.#scratch.address);
    check("ioctl", result, `UFFDIO_WRITEPROTECT, ${length} bytes`);
  }

  /**
   * UFFDIO_COPY of `length` bytes (whole host pages) from `source` (any alignment) to `target`.
   * Returns the bytes placed: less than `length` when the kernel stopped half-way, which is not a
   * failure; or a negative errno when nothing was placed: EEXIST (a page is there already), EAGAIN
   * (events wait to be read first). The kernel's own result field is signed; it is kept so.
   */
  copy(target: number, source: number, length: number): number {
    const { address, view } = this.#scratch;
    putU64(view, 0, target);
    putU64(view, 8, source);
    putU64(view, 16, length);
    putU64(view, 24, 0);
    putU64(view, 32, 0);
    const result = syscall(NR.ioctl, this.fd, UFFD.UFFDIO_COPY, address);
    return result === 0 ? length : partial(result, getI64(view, 32));
  }

  /** UFFDIO_ZEROPAGE of `length` bytes; results as `copy`. Not for hugetlbfs (EINVAL). */
  zero(target: number, length: number): number {
    const { address, view } = this.#scratch;
    this.#putRange(target, length, 0);
    putU64(view, 24, 0);
    const result = syscall(NR.ioctl, this.fd, UFFD.UFFDIO_ZEROPAGE, address);
    return result === 0 ? length : partial(result, getI64(view, 24));
  }

  /**
   * UFFDIO_CONTINUE: maps pages that the page cache has. Results as `copy`; EFAULT where it has none.
   */
  continue(target: number, length: number): number {
    const { address, view } = this.#scratch;
    this.#putRange(target, length, 0);
    putU64(view, 24, 0);
    const result = syscall(NR.ioctl, this.fd, UFFD.UFFDIO_CONTINUE, address);
    return result === 0 ? length : partial(result, getI64(view, 24));
  }

  /**
   * Takes the events that wait (at most one read's worth) and hands each to `take`. One is forgotten
   * only when `take` has returned: until then it is in the buffer.
   */
  readEvents(take: (event: UserfaultEvent) => void): number {
    const result = readInto(this.fd, this.#events.address, EVENT_BUFFER_BYTES);
    if (result === -ERRNO.EAGAIN) return 0;
    check("read", result, `userfaultfd ${this.fd}`);
    const count = result / MESSAGE_BYTES;
    for (let i = 0; i < count; i++) this.#takeEvent(i, take);
    return count;
  }

  /** Takes what is in the buffer of a process that ended before it was done with it. */
  leftEvents(take: (event: UserfaultEvent) => void): void {
    for (let i = 0; i < MESSAGES_PER_READ; i++) {
      if (this.#events.view.getUint8(i * MESSAGE_BYTES) !== 0) this.#takeEvent(i, take);
    }
  }

  #takeEvent(index: number, take: (event: UserfaultEvent) => void): void {
    const { view } = this.#events;
    take(decodeMessage(view, index * MESSAGE_BYTES));
    view.setUint8(index * MESSAGE_BYTES, 0);
  }

  #putRange(start: number, length: number, mode: number): void {
    const { view } = this.#scratch;
    putU64(view, 0, start);
    putU64(view, 8, length);
    putU64(view, 16, mode);
  }
}

/** What a page ioctl that returned `result` did: its struct says how far it came. */
function partial(result: number, done: number): number {
  return done > 0 ? done : result;
}

/** A userfaultfd and how it was obtained. */
export interface OpenedUserfault {
  userfault: Userfault;
  way: UserfaultWay;
}

/**
 * Opens a userfaultfd in the first way that the host allows.
 * @throws SyscallError of the first way (EPERM, ENOSYS) when none is allowed.
 */
export function openUserfault(): OpenedUserfault {
  let first = 0;
  for (const way of USERFAULT_WAYS) {
    const fd = tryUserfaultWay(way);
    if (fd >= 0) return { userfault: new Userfault(fd), way };
    if (first === 0) first = fd;
  }
  throw new SyscallError("userfaultfd", -first, "O_CLOEXEC|O_NONBLOCK");
}

/** How the kernel notes beside the features that UFFDIO_API was called. */
const INITIALIZED = 2 ** 31;

/**
 * The features that a userfaultfd was enabled with, by whomever (/proc/self/fdinfo); undefined if it has
 * not been enabled at all, and nothing can be read from it.
 */
export function enabledFeatures(fd: number): number | undefined {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, "latin1");
  const features = parseInt(/^API:\s+[0-9a-f]+:([0-9a-f]+):/m.exec(text)?.[1] ?? "", 16);
  if (Number.isNaN(features)) throw new Error(`descriptor ${fd} is no userfaultfd`);
  return features >= INITIALIZED ? features - INITIALIZED : undefined;
}

/** The features that this kernel offers, asked of a userfaultfd of its own. 0: none can be had. */
export function userfaultFeatures(): number {
  const { userfault } = openUserfault();
  try {
    return userfault.enable(0);
  } finally {
    userfault.close();
  }
}
