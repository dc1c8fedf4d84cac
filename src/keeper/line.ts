/** One line of text over a unix socket, with descriptors: all that a holder and others say. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { receiveWithDescriptors, sendWithDescriptors } from "../../syscalls/ancillary.ts";
import { closeDescriptor, POLL, PollSet } from "../../syscalls/descriptor.ts";
import { check } from "../../syscalls/error.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { KeeperError } from "./keeper.ts";

const LINE_BYTES_MAX = 4096;

let scratch: Scratch | undefined;

/** A line as it came, without its end. The descriptors are the caller's. */
export interface Line {
  text: string;
  descriptors: number[];
}

/** Sends text with descriptors, which stay open here: it is far shorter than what a socket takes. */
export function sendText(fd: number, text: string, descriptors: readonly number[]): void {
  scratch ??= mapScratch(LINE_BYTES_MAX);
  const bytes = new TextEncoder().encode(text);
  scratch.bytes.set(bytes);
  const sent = sendWithDescriptors(fd, scratch.address, bytes.length, descriptors);
  check("sendmsg", sent, `fd ${fd}, ${bytes.length} bytes, ${descriptors.length} descriptors`);
}

/** Sends a line with descriptors. @throws SyscallError EPIPE. */
export function sendLine(fd: number, text: string, descriptors: readonly number[] = []): void {
  sendText(fd, `${text}\n`, descriptors);
}

/**
 * Waits for a line. @throws KeeperError when none comes within `limitMs`, or what comes is none;
 * SyscallError.
 */
export function receiveLine(fd: number, limitMs: number): Line {
  const descriptors: number[] = [];
  try {
    return { text: receiveText(fd, performance.now() + limitMs, descriptors), descriptors };
  } catch (error) {
    descriptors.forEach(closeDescriptor);
    throw error;
  }
}

function receiveText(fd: number, deadline: number, descriptors: number[]): string {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  const decoder = new TextDecoder();
  let text = "";
  while (!text.endsWith("\n")) {
    const left = deadline - performance.now();
    if (left <= 0) throw new KeeperError("NO_KEEPER", "Nothing came in time");
    poll.wait(left);
    text += decoder.decode(receivePiece(fd, descriptors), { stream: true });
    if (text.length > LINE_BYTES_MAX) throw new KeeperError("NO_KEEPER", "What came is too long");
  }
  return text.slice(0, -1);
}

function receivePiece(fd: number, descriptors: number[]): Uint8Array {
  scratch ??= mapScratch(LINE_BYTES_MAX);
  const got = receiveWithDescriptors(fd, scratch.address, LINE_BYTES_MAX);
  descriptors.push(...got.descriptors);
  if (got.truncated) throw new KeeperError("NO_KEEPER", "Too many files are open (ulimit -n)");
  if (got.result === -ERRNO.EAGAIN) return new Uint8Array(0);
  if (check("recvmsg", got.result, `fd ${fd}`) === 0) {
    throw new KeeperError("NO_KEEPER", "It closed the connection");
  }
  return scratch.bytes.subarray(0, got.result);
}
