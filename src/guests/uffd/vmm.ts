/** A VMM that comes: its connection, who it is, and what it hands over. */
import { POLL, closeDescriptor } from "../../../syscalls/descriptor.ts";
import { acceptConnection, peerProcess } from "../../../syscalls/socket.ts";
import { waitReady } from "../../channel/channel.ts";
import { FIRECRACKER } from "./firecracker.ts";
import { commonPageSize } from "./handover.ts";
import { receiveHandover } from "./receive.ts";
import type { TakenHandover } from "./receive.ts";

/** A VMM that has handed its memory over, and runs. Plain data; its descriptors are the process's. */
export interface Vmm {
  handover: TakenHandover;
  /** Its process (SO_PEERCRED); 0 where that is in none of our pid namespaces. */
  pid: number;
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
    } catch (error) {
      closeDescriptor(handover.userfaultFd);
      throw error;
    }
    return { handover, pid, connection };
  } catch (error) {
    closeDescriptor(connection);
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
