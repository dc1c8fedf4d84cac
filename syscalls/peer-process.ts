/** The process at the other end of a unix socket: SO_PEERCRED and SO_PEERPIDFD of unix(7). */
import { ERRNO } from "./abi/errno.ts";
import { SOCKET, UCRED } from "./abi/socket.ts";
import { check } from "./error.ts";
import { mapScratch } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

const { size: UCRED_BYTES, fields: UCRED_AT } = UCRED["struct ucred"];
/** Of a descriptor's number. */
const FD_BYTES = 4;

let scratch: Scratch | undefined;

/** Room for what is asked for, and behind it for its length. */
function optionScratch(): Scratch {
  scratch ??= mapScratch(UCRED_BYTES + 4);
  return scratch;
}

/** getsockopt(2) of SOL_SOCKET into scratch memory: 0 or -errno. */
function getOption(fd: number, option: number, bytes: number): number {
  const { address, view } = optionScratch();
  view.setUint32(bytes, bytes, true);
  return syscall(NR.getsockopt, fd, SOCKET.SOL_SOCKET, option, address, address + bytes);
}

/** Who is at the other end of a unix socket (struct ucred). */
export interface PeerCredentials {
  /** 0 where the process is in none of our pid namespaces. */
  pid: number;
  /** The effective user and group of that process, as they were then. */
  uid: number;
  gid: number;
}

/**
 * SO_PEERCRED of a unix socket that is connected: whoever connected to it where it was accepted, and
 * whoever listened where it did connect.
 */
export function peerCredentials(fd: number): PeerCredentials {
  check("getsockopt", getOption(fd, SOCKET.SO_PEERCRED, UCRED_BYTES), `fd ${fd}, SO_PEERCRED`);
  const { view } = optionScratch();
  return {
    pid: view.getInt32(UCRED_AT.pid, true),
    uid: view.getUint32(UCRED_AT.uid, true),
    gid: view.getUint32(UCRED_AT.gid, true),
  };
}

/** The process of `peerCredentials`. */
export function peerProcess(fd: number): number {
  return peerCredentials(fd).pid;
}

/**
 * A descriptor (pidfd) of the process of `peerCredentials`, also of one in another pid namespace, which
 * is the caller's to close; or -errno: ENOPROTOOPT before Linux 6.5, ESRCH when it has ended.
 */
export function openPeerProcess(fd: number): number {
  const result = getOption(fd, SOCKET.SO_PEERPIDFD, FD_BYTES);
  // Linux up to 6.15 calls the end of the process an invalid argument.
  if (result === -ERRNO.EINVAL) return -ERRNO.ESRCH;
  return result < 0 ? result : optionScratch().view.getInt32(0, true);
}
