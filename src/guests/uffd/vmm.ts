/** A VMM that comes: its connection, who it is, and what it hands over. */
import { POLL, closeDescriptor, setNonBlocking } from "../../../syscalls/descriptor.ts";
import { acceptConnection } from "../../../syscalls/socket.ts";
import { enabledFeatures } from "../../../syscalls/userfaultfd.ts";
import { waitReady } from "../../channel/channel.ts";
import { FIRECRACKER } from "./firecracker.ts";
import { commonPageSize, HandoverError } from "./handover.ts";
import { NOBODY, receiveHandover } from "./receive.ts";
import type { TakenHandover } from "./receive.ts";
import { checkCaller, openCaller } from "./vmm-process.ts";
import type { Caller } from "./vmm-process.ts";

/** A VMM that has handed its memory over, and runs. Plain data; its descriptors are the process's. */
export interface Vmm {
  handover: TakenHandover;
  /** Its process (SO_PEERCRED); 0 where that is in none of our pid namespaces. */
  pid: number;
  /** Its process (pidfd), which no other one takes the place of; -1 where there is none of it. */
  processFd: number;
  /** Its connection, on which nothing more comes; -1 where another process took it. */
  connection: number;
}

export interface VmmWait {
  listenFd: number;
  /** Raised when nobody waits any more. */
  stopFd: number;
  /** How long a VMM that has connected may take for its handover. */
  timeoutMs: number;
}

/**
 * Waits for a VMM, and takes its memory over. The first who connects and says something is the one;
 * whoever looks whether somebody listens here says nothing.
 * @throws HandoverError, StoppedError, VmmGoneError.
 */
export function receiveVmm(wait: VmmWait): Vmm {
  for (;;) {
    const vmm = receiveNext(wait);
    if (vmm !== undefined) return vmm;
  }
}

/** The next who connects; undefined when it is nobody. */
function receiveNext(wait: VmmWait): Vmm | undefined {
  const connection = acceptVmm(wait.listenFd, wait.stopFd);
  let caller: Caller | undefined;
  try {
    caller = openCaller(connection);
    const handover = takeHandover(connection, caller, wait);
    return { handover, pid: caller.pid, connection, processFd: caller.fd };
  } catch (error) {
    if (caller !== undefined && caller.fd >= 0) closeDescriptor(caller.fd);
    closeDescriptor(connection);
    if (error instanceof HandoverError && error.code === NOBODY) return undefined;
    throw error;
  }
}

function takeHandover(fd: number, caller: Caller, { stopFd, timeoutMs }: VmmWait): TakenHandover {
  const handover = receiveHandover({ fd, stopFd, format: FIRECRACKER, timeoutMs });
  try {
    commonPageSize(handover.regions);
    if (enabledFeatures(handover.userfaultFd) === undefined) {
      const what = "The VMM's userfaultfd was not enabled (UFFDIO_API) before it was handed over";
      throw new HandoverError("NOT_ENABLED", what);
    }
    checkCaller(caller, handover.regions);
    // One that blocks cannot be polled: it would be read with every lock held that placing takes.
    setNonBlocking(handover.userfaultFd, true);
    return handover;
  } catch (error) {
    closeDescriptor(handover.userfaultFd);
    throw error;
  }
}

function acceptVmm(listenFd: number, stopFd: number): number {
  for (;;) {
    waitReady(listenFd, POLL.POLLIN, stopFd, Infinity);
    const fd = acceptConnection(listenFd);
    // Whoever connected has gone again.
    if (fd >= 0) return fd;
  }
}
