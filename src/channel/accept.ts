/** Finding the migration among those who connect; in the incoming thread. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { POLL, PollSet, closeDescriptor } from "../../syscalls/descriptor.ts";
import { check } from "../../syscalls/error.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { peekBytes } from "../../syscalls/socket.ts";
import {
  COMMAND,
  MULTIFD_CHANNELS_MAX,
  MULTIFD_MAGIC,
  SECTION,
  STREAM_MAGIC,
} from "../stream/constants.ts";
import { AllowList } from "./allow.ts";
import type { AllowRule } from "./allow.ts";
import { StoppedError, waitReady } from "./channel.ts";
import { LimitedWarnings } from "./limited-warnings.ts";
import type { Warn } from "./limited-warnings.ts";
import { tuneConnection } from "./tune.ts";

/**
 * Connections that may wait unclassified: a silent one could be the migration, or anybody. A source
 * speaks as soon as it is connected, so the one that has been silent for longest makes room.
 */
const SILENT_MAX = 16;
/** Multifd channels that may wait: one more than are taken, so that this can be said by name. */
const MULTIFD_MAX = MULTIFD_CHANNELS_MAX + 1;
const MAGIC_BYTES = 4;
const DRIBBLE_PAUSE_MS = 1;
/** The other end will send no more. */
const HUNG_UP = POLL.POLLRDHUP | POLL.POLLHUP | POLL.POLLERR;

/** Where a source is awaited. */
export interface Entrance {
  listenFd: number;
  /** An eventfd that ends the waiting with StoppedError when it is raised. */
  stopFd: number;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
  /** From where one may connect (default: from anywhere). */
  allow?: readonly AllowRule[];
  warn: Warn;
}

/** The migration's main connection, and those that were there when it was found. */
export interface Accepted {
  main: number;
  /** Silent connections and multifd channels: they may be the same source's. */
  others: number[];
}

/**
 * Accepts connections until one begins as a migration stream does. Whoever sends something else is
 * turned away with a warning; whoever stays silent is kept aside, because QEMU 7.2 opens its
 * preempt channel, on which it sends nothing, beside the main one and in any order. So are multifd
 * channels, which may come first and do not wait for the main one to speak.
 */
export function acceptMigration(entrance: Entrance): Accepted {
  const accepted = new Door(entrance, STREAM_MAGIC).open(Infinity);
  if (accepted === undefined) throw new Error("nobody was waited for");
  return accepted;
}

/** The command RECV_BITMAP, without the length of its payload: what a recovery begins with. */
const RECOVERY_START = ((SECTION.command << 16) | COMMAND.recvBitmap) << 8;

/**
 * The same for a source that comes back after its link broke: it begins with a command. Undefined
 * when none did within `timeoutMs`.
 */
export function acceptRecovery(entrance: Entrance, timeoutMs: number): Accepted | undefined {
  return new Door(entrance, RECOVERY_START).open(timeoutMs);
}

type Verdict =
  | "migration"
  | "multifd"
  /** The first bytes of a magic, and more may come. */
  | "undecided"
  | "stranger"
  /** Closed or reset before it said anything. */
  | "gone";

class Door {
  readonly #entrance: Entrance;
  readonly #allow: AllowList;
  readonly #warnings: LimitedWarnings;
  /** The first bytes of who is awaited. */
  readonly #start: number;
  readonly #poll = new PollSet();
  readonly #stopSlot: number;
  readonly #listenSlot: number;
  readonly #slots: readonly number[];
  readonly #peek = mapScratch(MAGIC_BYTES);
  /** Oldest first. */
  readonly #silent: number[] = [];
  readonly #multifd: number[] = [];

  constructor(entrance: Entrance, start: number) {
    this.#start = start;
    this.#entrance = entrance;
    this.#warnings = new LimitedWarnings(entrance.warn);
    this.#allow = new AllowList(entrance.allow ?? [], (message) => this.#warnings.say(message));
    this.#stopSlot = this.#poll.add(entrance.stopFd, POLL.POLLIN);
    this.#listenSlot = this.#poll.add(entrance.listenFd, POLL.POLLIN);
    const length = SILENT_MAX + MULTIFD_MAX;
    this.#slots = Array.from({ length }, () => this.#poll.add(-1, 0));
  }

  open(timeoutMs: number): Accepted | undefined {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) {
        [...this.#silent, ...this.#multifd].forEach(closeDescriptor);
        return undefined;
      }
      const ready = this.#wait(leftMs);
      let dribbles = false;
      for (const { fd, events } of ready) {
        const verdict = this.#judge(fd, (events & HUNG_UP) !== 0);
        if (verdict === "migration") {
          const silent = this.#silent.filter((other) => other !== fd);
          return { main: fd, others: [...silent, ...this.#multifd] };
        }
        if (verdict === "undecided") dribbles = true;
        else this.#sort(fd, verdict);
      }
      if (this.#poll.ready(this.#listenSlot) !== 0) this.#take();
      // A peer that dribbles: look again a little later instead of spinning on a ready socket.
      else if (dribbles) this.#pause();
    }
  }

  /** Waits until somebody connects or speaks. Of a multifd channel only its end is of interest. */
  #wait(timeoutMs: number): { fd: number; events: number }[] {
    const all = [...this.#silent, ...this.#multifd];
    this.#slots.forEach((slot, i) => {
      const speaks = i < this.#silent.length ? POLL.POLLIN : 0;
      this.#poll.set(slot, all[i] ?? -1, POLL.POLLRDHUP | speaks);
    });
    this.#poll.wait(timeoutMs);
    if (this.#poll.ready(this.#stopSlot) !== 0) {
      all.forEach(closeDescriptor);
      throw new StoppedError();
    }
    return all
      .map((fd, i) => ({ fd, events: this.#poll.ready(this.#slots[i] ?? -1) }))
      .filter(({ events }) => events !== 0);
  }

  /** Looks at the first bytes of a connection, without taking them. */
  #judge(fd: number, hungUp: boolean): Verdict {
    const { address, bytes } = this.#peek;
    const got = peekBytes(fd, address, MAGIC_BYTES);
    if (got === -ERRNO.EAGAIN) return "undecided";
    if (got <= 0) return "gone";
    const migration = begins(bytes, got, this.#start);
    if (!migration && !begins(bytes, got, MULTIFD_MAGIC)) return "stranger";
    // No source closes one of its channels while the main one has not spoken.
    if (hungUp && !(migration && got === MAGIC_BYTES)) return "stranger";
    if (got < MAGIC_BYTES) return "undecided";
    return migration ? "migration" : "multifd";
  }

  #pause(): void {
    const { stopFd } = this.#entrance;
    waitReady(stopFd, POLL.POLLIN, stopFd, DRIBBLE_PAUSE_MS);
  }

  #sort(fd: number, verdict: Exclude<Verdict, "migration" | "undecided">): void {
    const list = this.#silent.includes(fd) ? this.#silent : this.#multifd;
    list.splice(list.indexOf(fd), 1);
    if (verdict === "multifd" && this.#multifd.length < MULTIFD_MAX) {
      this.#multifd.push(fd);
      return;
    }
    if (verdict !== "gone") {
      this.#warnings.say("A connection that is not a QEMU migration stream was turned away");
    }
    closeDescriptor(fd);
  }

  #take(): void {
    const { listenFd, linkTimeoutMs } = this.#entrance;
    const fd = this.#allow.accept(listenFd);
    // Most failures mean that whoever connected has gone; these would fail again for ever.
    if (fd === -ERRNO.EMFILE || fd === -ERRNO.ENFILE) check("accept4", fd, `fd ${listenFd}`);
    if (fd < 0) return;
    const [oldest] = this.#silent;
    if (oldest !== undefined && this.#silent.length === SILENT_MAX) {
      this.#warnings.say(`More than ${SILENT_MAX} silent connections: the oldest was dropped`);
      this.#silent.shift();
      closeDescriptor(oldest);
    }
    tuneConnection(fd, linkTimeoutMs);
    this.#silent.push(fd);
  }
}

/** Whether the first `count` bytes are those of `magic`. */
function begins(bytes: Uint8Array, count: number, magic: number): boolean {
  for (let i = 0; i < count; i++) {
    if (bytes[i] !== ((magic >>> (24 - 8 * i)) & 0xff)) return false;
  }
  return true;
}
