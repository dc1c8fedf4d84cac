/** One line of text over a unix socket, with descriptors: all that a holder and others say. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { receiveWithDescriptors, sendWithDescriptors } from "../../syscalls/ancillary.ts";
import { closeDescriptor, POLL, PollSet } from "../../syscalls/descriptor.ts";
import { check } from "../../syscalls/error.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { KeeperError } from "./keeper.ts";
import { becomesReady } from "./readiness.ts";

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
 * Waits for a line, and blocks. @throws KeeperError when none comes within `limitMs`, or what comes is
 * none; SyscallError.
 */
export function receiveLine(fd: number, limitMs: number): Line {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  const deadline = performance.now() + limitMs;
  const line = new ArrivingLine(fd);
  try {
    while (!line.isWhole) {
      const left = deadline - performance.now();
      if (left <= 0) throw nothingCame();
      poll.wait(left);
      line.read();
    }
    return line.line;
  } catch (error) {
    line.close();
    throw error;
  }
}

/** The same, and blocks nobody; it ends early when `signal` is aborted, as if nothing had come. */
export async function awaitLine(fd: number, limitMs: number, signal?: AbortSignal): Promise<Line> {
  const deadline = performance.now() + limitMs;
  const line = new ArrivingLine(fd);
  try {
    while (!line.isWhole) {
      if (!(await becomesReady(fd, POLL.POLLIN, deadline, signal))) throw nothingCame();
      line.read();
    }
    return line.line;
  } catch (error) {
    line.close();
    throw error;
  }
}

function nothingCame(): KeeperError {
  return new KeeperError("NO_KEEPER", "Nothing came in time");
}

/** What has come of a line. */
class ArrivingLine {
  readonly #fd: number;
  readonly #decoder = new TextDecoder();
  readonly #descriptors: number[] = [];
  #text = "";

  constructor(fd: number) {
    this.#fd = fd;
  }

  get isWhole(): boolean {
    return this.#text.endsWith("\n");
  }

  /** Takes what is there. @throws KeeperError, SyscallError. */
  read(): void {
    const piece = receivePiece(this.#fd, this.#descriptors);
    this.#text += this.#decoder.decode(piece, { stream: true });
    if (this.#text.length > LINE_BYTES_MAX) {
      throw new KeeperError("NO_KEEPER", "What came is too long");
    }
  }

  get line(): Line {
    return { text: this.#text.slice(0, -1), descriptors: this.#descriptors };
  }

  /** Closes the descriptors that nobody takes. */
  close(): void {
    this.#descriptors.forEach(closeDescriptor);
  }
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
