/** The process of a VMM: which one it is, and what can be seen of it from outside. */
import { fstatSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { openProcess } from "../../../syscalls/pidfd.ts";
import { openPeerProcess, peerProcess } from "../../../syscalls/peer-process.ts";
import { VmmGoneError } from "../../dest/place-failure.ts";
import { HandoverError } from "./handover.ts";
import type { Region } from "./handover.ts";
import { USERFAULT_LINK } from "./receive.ts";

/** Who has connected. */
export interface Caller {
  /** Its process (SO_PEERCRED); 0 where that is in none of our pid namespaces. */
  pid: number;
  /**
   * Its process (pidfd), which no other one takes the place of. -1 where it had ended already, and,
   * before Linux 6.5, where `pid` is 0.
   */
  fd: number;
  /** `fd` is just that process; else it is the one that had its number a moment later. */
  isSure: boolean;
}

/** Who is at the other end of a connection: to be called as soon as it has come. */
export function openCaller(connection: number): Caller {
  const pid = peerProcess(connection);
  const fd = openPeerProcess(connection);
  if (fd >= 0) return { pid, fd, isSure: true };
  if (fd === -ERRNO.ESRCH) return { pid, fd: -1, isSure: true };
  if (fd !== -ERRNO.ENOPROTOOPT) throw new SyscallError("getsockopt", -fd, "SO_PEERPIDFD");
  return pid === 0 ? { pid, fd: -1, isSure: false } : openByNumber(connection, pid);
}

/** Before Linux 6.5. */
function openByNumber(connection: number, pid: number): Caller {
  try {
    const fd = openProcess(pid);
    // A process that has ended has hung up, unless another one has its end of the connection as well.
    return { pid, fd, isSure: !isReady(connection, POLL.POLLHUP) };
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== ERRNO.ESRCH) throw error;
    return { pid, fd: -1, isSure: true };
  }
}

let poll: PollSet | undefined;

function isReady(fd: number, events: number): boolean {
  if (poll === undefined) {
    poll = new PollSet();
    poll.add(-1, 0);
  }
  poll.set(0, fd, events);
  return poll.wait(0) > 0;
}

/**
 * Refuses a caller in whose address space the regions are not: it hands over what is another
 * process's, which could then be neither watched nor killed. Where its address space cannot be
 * looked at it is believed, if it is surely the one that called.
 * @throws HandoverError NOT_THE_VMM; VmmGoneError.
 */
export function checkCaller({ pid, fd, isSure }: Caller, regions: readonly Region[]): void {
  if (fd < 0) {
    if (isSure) throw new VmmGoneError();
    return;
  }
  const mapped = readMaps(pid);
  // What was looked at was its, unless it has ended and its number was given to another one.
  if (isReady(fd, POLL.POLLIN)) throw new VmmGoneError();
  if (mapped === undefined) {
    if (isSure) return;
    throw notTheVmm(pid, "it closed its connection, and what it has mapped cannot be looked at");
  }
  const all = regions.reduce((sum, { length }) => sum + length, 0);
  const own = regions.reduce((sum, region) => sum + mappedBytes(mapped, region), 0);
  // Its guest may have moved or unmapped some of it since.
  if (own >= all / 2) return;
  throw notTheVmm(pid, `${own} of the ${all} bytes are in its own address space`);
}

function notTheVmm(pid: number, why: string): HandoverError {
  const what = `Process ${pid} hands over the memory of another one: ${why}`;
  const hint = "the VMM itself has to connect: it is what is killed if it cannot be filled";
  return new HandoverError("NOT_THE_VMM", what, { hint });
}

/** A range of an address space, [start, end), and whether it is a shared mapping. */
interface Range {
  start: number;
  end: number;
  shared: boolean;
}

/** What a process has mapped, in order; undefined where that cannot be seen (proc(5), maps). */
function readMaps(pid: number): Range[] | undefined {
  const place = procOf(pid);
  if (place === undefined) return undefined;
  let text: string;
  try {
    text = readFileSync(`${place}/maps`, "latin1");
  } catch {
    return undefined;
  }
  const found = text.matchAll(/^([\da-f]+)-([\da-f]+) ...([sp])/gm);
  return Array.from(found, ([, start = "", end = "", kind]): Range => {
    return {
      start: Number.parseInt(start, 16),
      end: Number.parseInt(end, 16),
      shared: kind === "s",
    };
  });
}

/** How much of a region is mapped. */
function mappedBytes(mapped: readonly Range[], { address, length }: Region): number {
  const parts = mapped.map(({ start, end }) => {
    return Math.min(end, address + length) - Math.max(start, address);
  });
  return parts.reduce((sum, bytes) => sum + Math.max(0, bytes), 0);
}

/** Its directory; undefined where it is in another pid namespace, or the /proc here is of another. */
function procOf(pid: number): string | undefined {
  if (pid === 0 || linkOf("/proc/self") !== String(process.pid)) return undefined;
  return `/proc/${pid}`;
}

/** What tells a userfaultfd from others, whoever has it open (Linux 5.12; before all are alike). */
export function userfaultIdentity(fd: number): number {
  return fstatSync(fd).ino;
}

/**
 * Whether a process has the userfaultfd of an identity open, as one that has handed its own over
 * should: with its last descriptor the kernel gives the memory back, and what is missing is zeros.
 * Undefined where that cannot be seen.
 */
export function keepsUserfault(pid: number, identity: number): boolean | undefined {
  const place = procOf(pid);
  if (place === undefined) return undefined;
  let names: string[];
  try {
    names = readdirSync(`${place}/fd`);
  } catch {
    return undefined;
  }
  return names.some((name) => isUserfault(`${place}/fd/${name}`, identity));
}

function isUserfault(path: string, identity: number): boolean {
  if (linkOf(path) !== USERFAULT_LINK) return false;
  return statSync(path, { throwIfNoEntry: false })?.ino === identity;
}

/**
 * Whether any of the regions is a shared mapping (/proc/PID/maps), as of a memory file that others map.
 * Undefined where that cannot be seen.
 */
export function sharesMemory(pid: number, regions: readonly Region[]): boolean | undefined {
  const shared = readMaps(pid)?.filter((range) => range.shared);
  return shared && regions.some((region) => mappedBytes(shared, region) > 0);
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return undefined;
  }
}
