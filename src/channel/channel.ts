/**
 * A byte channel to the peer over a non-blocking descriptor: reads fill a StreamReader, writes are
 * gathered. Every wait also watches a stop descriptor and a deadline, so no thread hangs in one.
 *
 * Threads share the descriptor, not the object: each makes its own Channel. One thread reads; who
 * writes holds the channel's lock if more than one does.
 */
import { ERRNO, errnoName } from "../../syscalls/abi/errno.ts";
import { closeDescriptor, POLL, PollSet } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { readInto, writeFrom } from "../../syscalls/io.ts";
import type { GatherList } from "../../syscalls/io.ts";
import { mapScratch, scratchAt } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { shutdownSocket } from "../../syscalls/socket.ts";
import { PACKED_RUN_PAGES_MAX, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { StreamReader } from "../stream/reader.ts";
import { formatDuration } from "../util/duration.ts";
import { PostcopyError } from "../util/errors.ts";

/** The peer closed, reset or never answered: the channel is of no more use. */
export class ChannelError extends PostcopyError {}

/** Somebody asked this thread to stop (the stop descriptor was raised). */
export class StoppedError extends PostcopyError {
  constructor() {
    super("STOPPED", "Stopped on request");
  }
}

/** What a channel is made of. */
export interface ChannelOptions {
  /** A non-blocking descriptor; whoever made it closes it. */
  fd: number;
  /** An eventfd that ends every wait with StoppedError when it is raised. */
  stopFd: number;
  /** Names the peer in errors: "the source at 127.0.0.1:4444". */
  peer: string;
  /** Size of the receive buffer in bytes; 0 for a channel that only writes. */
  bufferBytes: number;
}

/** Where a reader stands in its receive buffer: all that another thread needs to go on reading. */
export interface ReaderPosition {
  address: number;
  length: number;
  pos: number;
  end: number;
  base: number;
}

/** Room for pages that have to be decoded before they are placed: one, or a run that is packed. */
export const SIDE_BYTES = PACKED_RUN_PAGES_MAX * TARGET_PAGE_SIZE;
/** Unread bytes that are moved to the front of the buffer before it is read into: part of a page. */
const MOVED_BYTES_MAX = TARGET_PAGE_SIZE;
const SMALL_WRITE_BYTES = 64 * 1024;

export class Channel {
  readonly fd: number;
  peer: string;
  /** What has arrived. It reads the receive buffer up to `sideAt`. */
  readonly reader: StreamReader;
  /** The receive buffer in mapped memory, with room for decoded pages behind it. */
  readonly buffer: Scratch;
  /** Where in `buffer` that room begins: the length of what the reader reads. */
  readonly sideAt: number;
  /** Longest silence of the peer, in milliseconds, that a read or write sits through. */
  timeoutMs = Infinity;
  /** Asked each time that it has passed: whether the peer may be silent for as long once more. */
  bearsSilence: () => boolean = () => false;
  /** When the peer must be done with `#due`, whatever it sends meanwhile: a peer can dribble. */
  #deadline = Infinity;
  #due = "";
  /** Bytes read and written through this object. */
  bytesRead = 0;
  bytesWritten = 0;
  /** How long this object has waited to read or write, in milliseconds. */
  waitedMs = 0;
  readonly #poll = new PollSet();
  #smallScratch: Scratch | undefined;

  /** `from` is where another thread's channel stopped reading: its buffer is read on. */
  constructor(options: ChannelOptions, from?: ReaderPosition) {
    this.fd = options.fd;
    this.peer = options.peer;
    this.sideAt = from?.length ?? options.bufferBytes;
    const bytes = this.sideAt + SIDE_BYTES;
    this.buffer = from === undefined ? mapScratch(bytes) : scratchAt(from.address, bytes);
    const readable = this.buffer.bytes.subarray(0, this.sideAt);
    this.reader = new StreamReader(
      readable,
      from?.end ?? 0,
      (reader, least) => this.#refill(reader, least),
      { atEnd: () => this.#atEnd() },
    );
    this.reader.pos = from?.pos ?? 0;
    this.reader.base = from?.base ?? 0;
    this.#poll.add(options.fd, POLL.POLLIN);
    this.#poll.add(options.stopFd, POLL.POLLIN);
  }

  /** The reader's position, for the thread that reads on. This object must not read any more. */
  position(): ReaderPosition {
    const { pos, end, base } = this.reader;
    return { address: this.buffer.address, length: this.sideAt, pos, end, base };
  }

  /**
   * Another connection lies under the descriptor now: what was read of the old one and not used is
   * forgotten. Offsets count on.
   */
  restart(): void {
    const { reader } = this;
    reader.base = reader.offset;
    reader.pos = 0;
    reader.end = 0;
  }

  /**
   * Gives the peer `ms` milliseconds from now on to do `what` ("send the list of RAM blocks"), however
   * many bytes it sends meanwhile; until `allowAnyTime`.
   */
  allow(ms: number, what: string): void {
    this.#deadline = performance.now() + ms;
    this.#due = `did not ${what} within ${formatDuration(ms)}`;
  }

  /** What comes next has its own time. */
  allowAnyTime(): void {
    this.#deadline = Infinity;
  }

  /** Another peer lies under the descriptor now, who has sent nothing yet. */
  startOver(peer: string): void {
    this.restart();
    this.reader.base = 0;
    this.peer = peer;
    this.allowAnyTime();
  }

  /** Reads what is there without waiting: bytes, 0 when nothing is, -1 at the end of the stream. */
  tryRead(): number {
    const { reader } = this;
    // What is read lies where the last bytes lay, which the cache still has.
    if (reader.available <= MOVED_BYTES_MAX || reader.end === reader.bytes.length) reader.compact();
    const room = reader.bytes.length - reader.end;
    if (room === 0) throw new Error("the receive buffer is full of unread bytes");
    const result = readInto(this.fd, this.buffer.address + reader.end, room);
    if (result > 0) {
      reader.end += result;
      this.bytesRead += result;
      return result;
    }
    if (result === 0) return -1;
    if (result === -ERRNO.EAGAIN) return 0;
    throw this.#broken("read", -result);
  }

  #refill(reader: StreamReader, least: number): void {
    const wanted = reader.end + least;
    if (wanted > reader.bytes.length) reader.compact();
    const target = reader.base + reader.end + least;
    while (reader.base + reader.end < target) {
      const got = this.tryRead();
      if (got < 0) {
        throw new ChannelError("PEER_CLOSED", `The connection was closed by ${this.peer}`);
      }
      if (got === 0) this.#wait(POLL.POLLIN, "sent nothing");
    }
  }

  /** Waits for the next bytes, or for the peer to close. */
  #atEnd(): boolean {
    for (;;) {
      const got = this.tryRead();
      if (got !== 0) return got < 0;
      this.#wait(POLL.POLLIN, "sent nothing");
    }
  }

  /** Writes all of a gather list, waiting while the socket is full. */
  writeAll(list: GatherList): void {
    while (list.remaining > 0) {
      const result = list.write(this.fd);
      if (result >= 0) this.bytesWritten += result;
      else if (result === -ERRNO.EAGAIN) this.#wait(POLL.POLLOUT, "took nothing");
      else throw this.#broken("write", -result);
    }
  }

  /** Writes bytes from any memory; they are copied first. */
  write(bytes: Uint8Array): void {
    const scratch = (this.#smallScratch ??= mapScratch(SMALL_WRITE_BYTES));
    for (let done = 0; done < bytes.length;) {
      const part = Math.min(bytes.length - done, SMALL_WRITE_BYTES);
      scratch.bytes.set(bytes.subarray(done, done + part));
      this.#writeScratch(scratch, part);
      done += part;
    }
  }

  #writeScratch(scratch: Scratch, length: number): void {
    for (let done = 0; done < length;) {
      const result = writeFrom(this.fd, scratch.address + done, length - done);
      if (result >= 0) {
        done += result;
        this.bytesWritten += result;
      } else if (result === -ERRNO.EAGAIN) this.#wait(POLL.POLLOUT, "took nothing");
      else throw this.#broken("write", -result);
    }
  }

  #wait(events: number, silence: string): void {
    const began = performance.now();
    try {
      this.#awaitEvents(events, silence);
    } finally {
      this.waitedMs += performance.now() - began;
    }
  }

  #awaitEvents(events: number, silence: string): void {
    this.#poll.set(0, this.fd, events);
    let silent = performance.now() + this.timeoutMs;
    for (;;) {
      const now = performance.now();
      if (now >= silent && this.bearsSilence()) silent = now + this.timeoutMs;
      if (now >= silent) {
        const time = formatDuration(this.timeoutMs);
        throw new ChannelError("PEER_SILENT", `${this.peer} ${silence} for ${time}`);
      }
      if (now >= this.#deadline) {
        throw new ChannelError("PEER_SLOW", `${this.peer} ${this.#due}`);
      }
      const left = Math.min(silent, this.#deadline) - now;
      if (this.#poll.wait(left) === 0) continue;
      if (this.#poll.ready(1) !== 0) throw new StoppedError();
      return;
    }
  }

  #broken(syscall: string, errno: number): ChannelError {
    const cause = new SyscallError(syscall, errno, `fd ${this.fd}`);
    const reset = errno === ERRNO.ECONNRESET || errno === ERRNO.EPIPE;
    const code = reset ? "PEER_CLOSED" : errnoName(errno);
    return new ChannelError(code, `The connection to ${this.peer} broke`, { cause });
  }
}

/**
 * Closes a connection for good: also where another process holds a copy of the descriptor (`fd:`),
 * the peer sees its end at once.
 */
export function endConnection(fd: number): void {
  shutdownSocket(fd);
  closeDescriptor(fd);
}

let waiter: PollSet | undefined;

/**
 * Waits until `fd` has one of `events`; false when `timeoutMs` passed without.
 * @throws StoppedError when the stop descriptor is raised.
 */
export function waitReady(fd: number, events: number, stopFd: number, timeoutMs: number): boolean {
  if (waiter === undefined) {
    waiter = new PollSet();
    waiter.add(-1, 0);
    waiter.add(-1, 0);
  }
  waiter.set(0, fd, events);
  waiter.set(1, stopFd, POLL.POLLIN);
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const left = deadline - performance.now();
    if (left <= 0) return false;
    if (waiter.wait(left) === 0) continue;
    if (waiter.ready(1) !== 0) throw new StoppedError();
    return true;
  }
}
