/**
 * The holder: a process that does nothing but keep descriptors, from another process of its user and
 * for one that takes its place. Requests are one line each, and so are answers:
 *
 *     keep NAME …    with as many descriptors     kept
 *     give                                        given NAME …   with them
 *     release                                     released       and the holder ends
 *
 * It says "refused: WHY" to what it does not do. Whoever is another user's hears nothing. It ends
 * with the process whose descriptor it keeps.
 */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { closeDescriptor, POLL, PollSet } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { peerCredentials } from "../../syscalls/peer-process.ts";
import { acceptConnection } from "../../syscalls/socket.ts";
import { errorChain } from "../util/errors.ts";
import { KEPT_MAX, KEPT_NAME, KeeperError, PROCESS_NAME } from "./keeper.ts";
import type { Kept } from "./keeper.ts";
import { receiveLine, sendLine } from "./line.ts";

/** How long one that has connected may take to say what it wants: it keeps all others waiting. */
const REQUEST_LIMIT_MS = 500;
/** How long nobody is let in when this process, or its host, has no room for a connection. */
const FULL_PAUSE_MS = 100;
/** What accept4(2) answers then: it passes, and what is held is needed still. */
const FULL: ReadonlySet<number> = new Set([
  ERRNO.EMFILE,
  ERRNO.ENFILE,
  ERRNO.ENOMEM,
  ERRNO.ENOBUFS,
]);

export interface HolderOptions {
  /** A listening unix socket. */
  listenFd: number;
  /** Raised when the holder is to end. */
  stopFd: number;
  /** Who is served: the user of this process. */
  uid: number;
  /** Something happened, for people; `refused` says that it should not have. */
  say: (message: string, refused: boolean) => void;
}

/** Why a holder ended. */
export type HolderEnd = "stopped" | "released" | "process ended";

/** Keeps what it is given until it is told to end, or there is no more use in it. */
export function runHolder(options: HolderOptions): HolderEnd {
  const holder = new Holder(options);
  try {
    return holder.run();
  } finally {
    holder.close();
  }
}

class Holder {
  readonly #options: HolderOptions;
  readonly #poll = new PollSet();
  readonly #processSlot: number;
  #kept: Kept[] = [];
  #released = false;
  #isFull = false;

  constructor(options: HolderOptions) {
    this.#options = options;
    this.#poll.add(options.stopFd, POLL.POLLIN);
    this.#poll.add(options.listenFd, POLL.POLLIN);
    this.#processSlot = this.#poll.add(-1, POLL.POLLIN);
  }

  run(): HolderEnd {
    while (!this.#released) {
      this.#poll.wait(this.#isFull ? FULL_PAUSE_MS : Infinity);
      if (this.#poll.ready(0) !== 0) return "stopped";
      if (this.#poll.ready(this.#processSlot) !== 0) return "process ended";
      if (this.#isFull || this.#poll.ready(1) !== 0) this.#accept();
    }
    return "released";
  }

  close(): void {
    for (const { fd } of this.#kept.splice(0)) closeDescriptor(fd);
  }

  #accept(): void {
    const fd = acceptConnection(this.#options.listenFd);
    this.#setFull(FULL.has(-fd));
    if (fd === -ERRNO.EAGAIN || this.#isFull) return;
    if (fd < 0) throw new SyscallError("accept4", -fd, "the holder's socket");
    try {
      this.#serve(fd);
    } catch (error) {
      // It has gone, or says nothing that can be understood: that ends nothing but this.
      if (!(error instanceof KeeperError) && !(error instanceof SyscallError)) throw error;
      this.#options.say(`Somebody who connected was not served: ${errorChain(error)}`, true);
    } finally {
      closeDescriptor(fd);
    }
  }

  /** Whoever waits to be let in is looked at again after a pause. */
  #setFull(isFull: boolean): void {
    if (this.#isFull === isFull) return;
    this.#isFull = isFull;
    this.#poll.set(1, isFull ? -1 : this.#options.listenFd, POLL.POLLIN);
    if (isFull) this.#options.say("No descriptor is left for whoever connects: it waits", true);
  }

  #serve(fd: number): void {
    const { uid, pid } = peerCredentials(fd);
    if (uid !== this.#options.uid) {
      const who = `process ${pid} of user ${uid}`;
      this.#options.say(`Refused: ${who} is not of this holder's user, ${this.#options.uid}`, true);
      return;
    }
    const { text, descriptors } = receiveLine(fd, REQUEST_LIMIT_MS);
    const [verb = "", ...names] = text.split(" ");
    if (verb === "keep") {
      const why = this.#keep(names, descriptors);
      if (why !== undefined) descriptors.forEach(closeDescriptor);
      this.#answer(fd, "kept", why, pid);
      return;
    }
    descriptors.forEach(closeDescriptor);
    if (verb === "give") this.#give(fd, pid);
    else if (verb === "release") this.#release(fd);
    else this.#answer(fd, "", `there is no ${JSON.stringify(verb)}`, pid);
  }

  /** Takes them over; undefined, or why not. */
  #keep(names: readonly string[], descriptors: readonly number[]): string | undefined {
    if (this.#kept.length > 0) return "descriptors are held already, of a process that lives";
    const isRight = names.length <= KEPT_MAX && names.every((name) => KEPT_NAME.test(name));
    if (!isRight || new Set(names).size !== names.length) return "these are no names";
    if (names.length !== descriptors.length) return "there are more names or descriptors";
    this.#kept = names.map((name, index) => ({ name, fd: descriptors[index] ?? -1 }));
    const life = this.#kept.find(({ name }) => name === PROCESS_NAME);
    this.#poll.set(this.#processSlot, life?.fd ?? -1, POLL.POLLIN);
    return undefined;
  }

  #give(fd: number, pid: number): void {
    const names = this.#kept.map(({ name }) => name);
    const descriptors = this.#kept.map((kept) => kept.fd);
    sendLine(fd, ["given", ...names].join(" "), descriptors);
    this.#options.say(`Given to process ${pid}: ${names.join(", ") || "nothing"}`, false);
  }

  #release(fd: number): void {
    sendLine(fd, "released");
    this.#released = true;
  }

  #answer(fd: number, done: string, refusal: string | undefined, pid: number): void {
    sendLine(fd, refusal === undefined ? done : `refused: ${refusal}`);
    const what = refusal === undefined ? "Held for" : `Refused (${refusal}):`;
    this.#options.say(`${what} process ${pid}`, refusal !== undefined);
  }
}
