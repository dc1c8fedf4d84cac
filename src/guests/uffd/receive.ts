/**
 * Taking a handover over: a connection from the VMM, its message in however many pieces, and the
 * userfaultfd, which may come with any of them. Descriptors that nobody needs are closed.
 */
import { readlinkSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { receiveWithDescriptors } from "../../../syscalls/ancillary.ts";
import { POLL, closeDescriptor } from "../../../syscalls/descriptor.ts";
import { check } from "../../../syscalls/error.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import type { Scratch } from "../../../syscalls/memory.ts";
import { waitReady } from "../../channel/channel.ts";
import { formatBytes } from "../../util/units.ts";
import { formatDuration } from "../../util/duration.ts";
import { HandoverError } from "./handover.ts";
import type { Handover, HandoverFormat } from "./handover.ts";

/** Longest message: 20,000 regions are fewer bytes. */
const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
/** The code of a connection that has ended with no byte and no descriptor: it was no VMM's. */
export const NOBODY = "NOBODY";
/** What /proc calls the descriptor of userfaultfd(2). */
export const USERFAULT_LINK = "anon_inode:[userfaultfd]";

export interface ReceiveOptions {
  /** The connection, non-blocking. It stays open. */
  fd: number;
  /** Raised when nobody wants the handover any more. */
  stopFd: number;
  format: HandoverFormat;
  /** How long the VMM may take for all of it. */
  timeoutMs: number;
}

/** A handover with the descriptor of its userfaultfd, which is the caller's to close. */
export interface TakenHandover extends Handover {
  userfaultFd: number;
}

/** @throws HandoverError, with a code for each way in which it can be wrong; StoppedError. */
export function receiveHandover(options: ReceiveOptions): TakenHandover {
  const receiver = new Receiver(options);
  try {
    return receiver.receive();
  } finally {
    receiver.close();
  }
}

/** Of this thread, whoever connects: there may be many who want nothing. */
let scratch: Scratch | undefined;

class Receiver {
  readonly #options: ReceiveOptions;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  readonly #descriptors: number[] = [];
  #text = "";
  #ended = false;
  #truncated = false;
  #isSilent = true;

  constructor(options: ReceiveOptions) {
    this.#options = options;
  }

  receive(): TakenHandover {
    const deadline = performance.now() + this.#options.timeoutMs;
    for (;;) {
      const handover = this.#options.format.parse(this.#text);
      if (handover !== undefined && this.#descriptors.length > 0) return this.#take(handover);
      if (this.#ended) throw this.#incomplete(handover, "the VMM closed the connection");
      if (!this.#wait(deadline)) {
        const time = formatDuration(this.#options.timeoutMs);
        throw this.#incomplete(handover, `nothing more came for ${time}`);
      }
      this.#read();
    }
  }

  /** Closes every descriptor that was not taken. */
  close(): void {
    this.#descriptors.splice(0).forEach(closeDescriptor);
  }

  /** False when the time is over. */
  #wait(deadline: number): boolean {
    const { fd, stopFd } = this.#options;
    return waitReady(fd, POLL.POLLIN, stopFd, deadline - performance.now());
  }

  #read(): void {
    scratch ??= mapScratch(PIECE_BYTES);
    const { address, bytes } = scratch;
    const { fd } = this.#options;
    const { result, descriptors, truncated } = receiveWithDescriptors(fd, address, PIECE_BYTES);
    this.#descriptors.push(...descriptors);
    this.#truncated ||= truncated;
    if (result > 0) this.#isSilent = false;
    if (result === -ERRNO.EAGAIN) return;
    // A VMM that is killed with unread bytes resets the connection.
    if (result === 0 || result === -ERRNO.ECONNRESET) {
      this.#ended = true;
      return;
    }
    check("recvmsg", result, "the VMM's connection");
    this.#text += this.#decode(bytes.subarray(0, result));
    if (this.#text.length <= MESSAGE_BYTES_MAX) return;
    const limit = formatBytes(MESSAGE_BYTES_MAX);
    throw new HandoverError("LONG_HANDOVER", `The VMM's message is longer than ${limit}`);
  }

  #decode(piece: Uint8Array): string {
    try {
      return this.#decoder.decode(piece, { stream: true });
    } catch (cause) {
      throw new HandoverError("BAD_HANDOVER", "The VMM's message is no text", { cause });
    }
  }

  /** The first descriptor is the userfaultfd; some VMMs send others with it. */
  #take(handover: Handover): TakenHandover {
    const [userfaultFd = -1] = this.#descriptors;
    const link = readlinkSync(`/proc/self/fd/${userfaultFd}`);
    if (link !== USERFAULT_LINK) {
      throw new HandoverError("NOT_USERFAULTFD", `The VMM's descriptor is no userfaultfd: ${link}`);
    }
    this.#descriptors.shift();
    return { ...handover, userfaultFd };
  }

  #incomplete(handover: Handover | undefined, why: string): HandoverError {
    if (this.#truncated) {
      const what =
        "The VMM's userfaultfd could not be opened: this process has too many files open";
      return new HandoverError("TOO_MANY_FILES", what, { hint: "ulimit -n" });
    }
    if (handover !== undefined) {
      const what = `The VMM's userfaultfd did not come with its message: ${why}`;
      return new HandoverError("NO_DESCRIPTOR", what);
    }
    if (this.#ended && this.#isSilent) {
      return new HandoverError(NOBODY, "Whoever connected ended without a word");
    }
    const { length } = this.#text.trim();
    if (length === 0) return new HandoverError("NO_MESSAGE", `The VMM said nothing: ${why}`);
    const what = `The VMM's message is cut off after ${formatBytes(length)}: ${why}`;
    return new HandoverError("CUT_HANDOVER", what);
  }
}
