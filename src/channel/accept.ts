/** Finding the migration among those who connect; in the incoming and in the listen thread. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { POLL, PollSet, closeDescriptor } from "../../syscalls/descriptor.ts";
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
import type { LimitedWarnings } from "./limited-warnings.ts";
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
/** How long this process may go on without a descriptor to spare, before one is asked for again. */
const FULL_PAUSE_MS = 20;
/** The other end will send no more. */
const HUNG_UP = POLL.POLLRDHUP | POLL.POLLHUP | POLL.POLLERR;

/** Where a source is awaited. */
export interface Entrance {
  listenFd: number;
  /** An eventfd that ends the waiting with StoppedError when it is raised. */
  stopFd: number;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
  /** From where one may connect; from anywhere if it is empty. */
  allow: readonly AllowRule[];
  /** Those of its thread: whoever comes again and again is told of no more often. */
  warnings: LimitedWarnings;
}

/** The migration's main connection, and those that were there when it was found. */
export interface Accepted {
  main: number;
  /** Silent connections and multifd channels: they may be the same source's. */
  others: number[];
}

/** The command RECV_BITMAP, without the length of its payload: what a recovery begins with. */
const RECOVERY_START = ((SECTION.command << 16) | COMMAND.recvBitmap) << 8;

type Verdict =
  | "migration"
  | "multifd"
  /** It begins a migration, where one that goes on is waited for. */
  | "beginner"
  /** It goes on with one, where one that begins is waited for. */
  | "returner"
  /** The first bytes of a magic, and more may come. */
  | "undecided"
  | "stranger"
  /** Closed or reset before it said anything. */
  | "gone";

/**
 * Accepts connections until one begins as a migration stream does. Whoever sends something else is
 * turned away with a warning; whoever stays silent is kept aside, because QEMU 7.2 opens its
 * preempt channel, on which it sends nothing, beside the main one and in any order. So are multifd
 * channels, which may come first and do not wait for the main one to speak. A thread has one, and
 * opens it as often as it likes: what it is made of lives as long as the thread.
 */
export class Door {
  readonly #entrance: Entrance;
  readonly #allow: AllowList;
  /** The first bytes of who is awaited. */
  readonly #start: number;
  readonly #poll = new PollSet();
  readonly #stopSlot: number;
  readonly #listenSlot: number;
  readonly #slots: readonly number[];
  readonly #peek = mapScratch(MAGIC_BYTES);
  /** Oldest first. */
  #silent: number[] = [];
  #multifd: number[] = [];

  private constructor(entrance: Entrance, start: number) {
    this.#start = start;
    this.#entrance = entrance;
    this.#allow = new AllowList(entrance.allow, (message) => entrance.warnings.say(message));
    this.#stopSlot = this.#poll.add(entrance.stopFd, POLL.POLLIN);
    this.#listenSlot = this.#poll.add(entrance.listenFd, POLL.POLLIN);
    const length = SILENT_MAX + MULTIFD_MAX;
    this.#slots = Array.from({ length }, () => this.#poll.add(-1, 0));
  }

  /** For a source that begins a migration. */
  static forMigration(entrance: Entrance): Door {
    return new Door(entrance, STREAM_MAGIC);
  }

  /** For a source that comes back after its link broke: it begins with a command. */
  static forRecovery(entrance: Entrance): Door {
    return new Door(entrance, RECOVERY_START);
  }

  /**
   * Waits for who is awaited; undefined when nobody came within `timeoutMs`.
   * @throws StoppedError when the stop descriptor is raised.
   */
  open(timeoutMs: number): Accepted | undefined {
    const deadline = performance.now() + timeoutMs;
    try {
      for (;;) {
        const leftMs = deadline - performance.now();
        if (leftMs <= 0) return undefined;
        const main = this.#turn(leftMs);
        if (main === undefined) continue;
        const silent = this.#silent.filter((other) => other !== main);
        const others = [...silent, ...this.#multifd];
        [this.#silent, this.#multifd] = [[], []];
        return { main, others };
      }
    } finally {
      [...this.#silent, ...this.#multifd].forEach(closeDescriptor);
      [this.#silent, this.#multifd] = [[], []];
    }
  }

  /** Waits once, and handles what it brings; the connection of who is awaited, if it is there. */
  #turn(timeoutMs: number): number | undefined {
    let dribbles = false;
    for (const { fd, events } of this.#wait(timeoutMs)) {
      const verdict = this.#judge(fd, (events & HUNG_UP) !== 0);
      if (verdict === "migration") return fd;
      if (verdict === "undecided") dribbles = true;
      else this.#sort(fd, verdict);
    }
    if (this.#poll.ready(this.#listenSlot) !== 0) this.#take();
    // A peer that dribbles: look again a little later instead of spinning on a ready socket.
    else if (dribbles) this.#pause(DRIBBLE_PAUSE_MS);
    return undefined;
  }

  /** Waits until somebody connects or speaks. Of a multifd channel only its end is of interest. */
  #wait(timeoutMs: number): { fd: number; events: number }[] {
    const all = [...this.#silent, ...this.#multifd];
    this.#slots.forEach((slot, i) => {
      const speaks = i < this.#silent.length ? POLL.POLLIN : 0;
      this.#poll.set(slot, all[i] ?? -1, POLL.POLLRDHUP | speaks);
    });
    this.#poll.wait(timeoutMs);
    if (this.#poll.ready(this.#stopSlot) !== 0) throw new StoppedError();
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
    // A channel of multifd begins otherwise, and so does what goes on after a broken link.
    if (!migration && got === MAGIC_BYTES && begins(bytes, got, STREAM_MAGIC)) return "beginner";
    if (!migration && got === MAGIC_BYTES && begins(bytes, got, RECOVERY_START)) return "returner";
    if (!migration && !begins(bytes, got, MULTIFD_MAGIC)) return "stranger";
    // No source closes one of its channels while the main one has not spoken.
    if (hungUp && !(migration && got === MAGIC_BYTES)) return "stranger";
    if (got < MAGIC_BYTES) return "undecided";
    return migration ? "migration" : "multifd";
  }

  #pause(ms: number): void {
    const { stopFd } = this.#entrance;
    waitReady(stopFd, POLL.POLLIN, stopFd, ms);
  }

  #sort(fd: number, verdict: Exclude<Verdict, "migration" | "undecided">): void {
    const list = this.#silent.includes(fd) ? this.#silent : this.#multifd;
    list.splice(list.indexOf(fd), 1);
    if (verdict === "multifd" && this.#multifd.length < MULTIFD_MAX) {
      this.#multifd.push(fd);
      return;
    }
    if (verdict !== "gone") this.#entrance.warnings.say(WHY_TURNED_AWAY[verdict]);
    closeDescriptor(fd);
  }

  #take(): void {
    const { listenFd, linkTimeoutMs } = this.#entrance;
    const fd = this.#allow.accept(listenFd);
    if (fd === -ERRNO.EMFILE || fd === -ERRNO.ENFILE) {
      // A guest may depend on who is awaited, so strangers that use up all there is must not end it.
      this.#dropOldest("No descriptor is left for a further connection");
      this.#pause(FULL_PAUSE_MS);
      return;
    }
    // Other failures mean that whoever connected has gone.
    if (fd < 0) return;
    if (this.#silent.length === SILENT_MAX) {
      this.#dropOldest(`More than ${SILENT_MAX} silent connections`);
    }
    tuneConnection(fd, linkTimeoutMs);
    this.#silent.push(fd);
  }

  /** Makes room: the one that has been silent for longest goes, if there is one. */
  #dropOldest(why: string): void {
    const oldest = this.#silent.shift();
    const what = oldest === undefined ? "" : ": the oldest was dropped";
    this.#entrance.warnings.say(`${why}${what}`);
    if (oldest !== undefined) closeDescriptor(oldest);
  }
}

/** What is said of who is turned away; there are more multifd channels than any source has. */
const WHY_TURNED_AWAY = {
  beginner:
    "A source that begins anew was turned away: the rest of a guest is waited for, which --resume sends",
  returner:
    "A source that goes on with a guest (--resume) was turned away: this dest has no part of one",
  stranger: "A connection that is not a QEMU migration stream was turned away",
  multifd: "A connection that is not a QEMU migration stream was turned away",
} as const;

/** Whether the first `count` bytes are those of `magic`. */
function begins(bytes: Uint8Array, count: number, magic: number): boolean {
  for (let i = 0; i < count; i++) {
    if (bytes[i] !== ((magic >>> (24 - 8 * i)) & 0xff)) return false;
  }
  return true;
}
