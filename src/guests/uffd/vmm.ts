/** A VMM that comes: its connection, who it is, and what it hands over. */
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { POLL, closeDescriptor, setNonBlocking } from "../../../syscalls/descriptor.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { openProcess } from "../../../syscalls/pidfd.ts";
import { acceptConnection, peerProcess } from "../../../syscalls/socket.ts";
import { enabledFeatures } from "../../../syscalls/userfaultfd.ts";
import { waitReady } from "../../channel/channel.ts";
import { VmmGoneError } from "../../dest/place-failure.ts";
import { FIRECRACKER } from "./firecracker.ts";
import { commonPageSize, HandoverError } from "./handover.ts";
import { receiveHandover } from "./receive.ts";
import type { TakenHandover } from "./receive.ts";

/** A VMM that has handed its memory over, and runs. Plain data; its descriptors are the process's. */
export interface Vmm {
  handover: TakenHandover;
  /** Its process (SO_PEERCRED); 0 where that is in none of our pid namespaces. */
  pid: number;
  /** Its process (pidfd), which no other one takes the place of; -1 where `pid` is 0. */
  processFd: number;
  /** Its connection, on which nothing more comes: it ends with the VMM. */
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
 * Waits for a VMM, and takes its memory over. The first who connects is the one: others cannot be told
 * from it before they have said something.
 * @throws HandoverError, StoppedError.
 */
export function receiveVmm({ listenFd, stopFd, timeoutMs }: VmmWait): Vmm {
  const connection = acceptVmm(listenFd, stopFd);
  try {
    const pid = peerProcess(connection);
    const format = FIRECRACKER;
    const handover = receiveHandover({ fd: connection, stopFd, format, timeoutMs });
    try {
      commonPageSize(handover.regions);
      if (enabledFeatures(handover.userfaultFd) === undefined) {
        const what = "The VMM's userfaultfd was not enabled (UFFDIO_API) before it was handed over";
        throw new HandoverError("NOT_ENABLED", what);
      }
      // One that blocks cannot be polled: it would be read with every lock held that placing takes.
      setNonBlocking(handover.userfaultFd, true);
      return { handover, pid, connection, processFd: openVmmProcess(pid) };
    } catch (error) {
      closeDescriptor(handover.userfaultFd);
      throw error;
    }
  } catch (error) {
    closeDescriptor(connection);
    throw error;
  }
}

/** @throws VmmGoneError where it has ended meanwhile. */
function openVmmProcess(pid: number): number {
  if (pid === 0) return -1;
  try {
    return openProcess(pid);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ERRNO.ESRCH) throw new VmmGoneError();
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
