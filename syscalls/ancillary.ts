/** File descriptors that travel over a unix socket: recvmsg(2), sendmsg(2), SCM_RIGHTS of unix(7). */
import { ERRNO } from "./abi/errno.ts";
import { MESSAGE, SOCKET } from "./abi/socket.ts";
import { getU64, mapScratch, putU64 } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

/** Most descriptors that the kernel passes in one message (SCM_MAX_FD of linux/net.h). */
export const DESCRIPTORS_MAX = 253;

const HEADER = MESSAGE["struct msghdr"];
const CONTROL = MESSAGE["struct cmsghdr"];
const IOVEC_AT = HEADER.size;
const CONTROL_AT = IOVEC_AT + 16;
/** Control messages begin at multiples of this (CMSG_ALIGN of a 64-bit system). */
const CONTROL_ALIGN = 8;
/** Room for two of the largest messages: of each call the kernel makes one at most. */
const CONTROL_BYTES = 2 * (CONTROL.size + DESCRIPTORS_MAX * 4);

let scratch: Scratch | undefined;

/** A message header over [address, address + length), with room for control messages behind it. */
function prepare(address: number, length: number, controlBytes: number): Scratch {
  scratch ??= mapScratch(CONTROL_AT + CONTROL_BYTES);
  const { view, bytes } = scratch;
  bytes.fill(0);
  putU64(view, IOVEC_AT, address);
  putU64(view, IOVEC_AT + 8, length);
  putU64(view, HEADER.fields.msg_iov, scratch.address + IOVEC_AT);
  putU64(view, HEADER.fields.msg_iovlen, 1);
  if (controlBytes > 0) {
    putU64(view, HEADER.fields.msg_control, scratch.address + CONTROL_AT);
    putU64(view, HEADER.fields.msg_controllen, controlBytes);
  }
  return scratch;
}

/** What one call brought. */
export interface Received {
  /** Bytes read, 0 at the end, or -errno (EAGAIN). */
  result: number;
  /** Descriptors that came with them, close-on-exec: from here on they are the caller's to close. */
  descriptors: number[];
  /** The kernel had more descriptors than this process may open, and has closed the others. */
  truncated: boolean;
}

/** recvmsg(2) into [address, address + length), with the descriptors that come along. */
export function receiveWithDescriptors(fd: number, address: number, length: number): Received {
  const { view, address: at } = prepare(address, length, CONTROL_BYTES);
  let result: number;
  do {
    result = syscall(NR.recvmsg, fd, at, SOCKET.MSG_CMSG_CLOEXEC);
  } while (result === -ERRNO.EINTR);
  if (result < 0) return { result, descriptors: [], truncated: false };
  const truncated = (view.getInt32(HEADER.fields.msg_flags, true) & SOCKET.MSG_CTRUNC) !== 0;
  return { result, descriptors: takeDescriptors(view), truncated };
}

function takeDescriptors(view: DataView): number[] {
  const descriptors: number[] = [];
  const end = CONTROL_AT + getU64(view, HEADER.fields.msg_controllen);
  for (let at = CONTROL_AT; at + CONTROL.size <= end;) {
    const length = getU64(view, at + CONTROL.fields.cmsg_len);
    if (length < CONTROL.size) break;
    const level = view.getInt32(at + CONTROL.fields.cmsg_level, true);
    const type = view.getInt32(at + CONTROL.fields.cmsg_type, true);
    if (level === SOCKET.SOL_SOCKET && type === SOCKET.SCM_RIGHTS) {
      for (let each = at + CONTROL.size; each + 4 <= at + length; each += 4) {
        descriptors.push(view.getInt32(each, true));
      }
    }
    at += Math.ceil(length / CONTROL_ALIGN) * CONTROL_ALIGN;
  }
  return descriptors;
}

/**
 * sendmsg(2) of [address, address + length) together with descriptors: bytes written or -errno
 * (EPIPE, without a signal). The descriptors go with the first byte, and stay open here.
 */
export function sendWithDescriptors(
  fd: number,
  address: number,
  length: number,
  descriptors: readonly number[],
): number {
  if (descriptors.length > DESCRIPTORS_MAX) throw new RangeError("too many descriptors at once");
  const bytes = descriptors.length === 0 ? 0 : CONTROL.size + descriptors.length * 4;
  const { view, address: at } = prepare(address, length, bytes);
  if (bytes > 0) {
    putU64(view, CONTROL_AT + CONTROL.fields.cmsg_len, bytes);
    view.setInt32(CONTROL_AT + CONTROL.fields.cmsg_level, SOCKET.SOL_SOCKET, true);
    view.setInt32(CONTROL_AT + CONTROL.fields.cmsg_type, SOCKET.SCM_RIGHTS, true);
    for (const [index, descriptor] of descriptors.entries()) {
      view.setInt32(CONTROL_AT + CONTROL.size + index * 4, descriptor, true);
    }
  }
  for (;;) {
    const result = syscall(NR.sendmsg, fd, at, SOCKET.MSG_NOSIGNAL);
    if (result !== -ERRNO.EINTR) return result;
  }
}
