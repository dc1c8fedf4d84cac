/**
 * Further connections at the destination. Anybody may connect to where a migration is awaited, so each is
 * nobody until it has begun with the head of stream/further-channel.ts: then it is one of the channels
 * that the source has opened beside the main one. It runs in the fault thread.
 */
import { ERRNO, errnoName } from "../../syscalls/abi/errno.ts";
import { POLL, closeDescriptor } from "../../syscalls/descriptor.ts";
import type { PollSet } from "../../syscalls/descriptor.ts";
import { readInto } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { AllowList } from "../channel/allow.ts";
import type { AllowRule } from "../channel/allow.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import type { Warn } from "../channel/limited-warnings.ts";
import { tuneConnection } from "../channel/tune.ts";
import { CHANNEL_HEAD_BYTES, readChannelHead } from "../stream/further-channel.ts";
import { HELD, WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/**
 * Connections that may be open without having proved anything; the oldest makes room. There is no
 * limit to how many come: the source's may be the last of them, and its pages are on it.
 */
const UNPROVEN_MAX = 16;

/** Who sends a head with another token. */
const STRANGER = "does not know this migration's token";

/** Where further connections come from. */
export interface FurtherOptions {
  shared: DestShared;
  /** Listening socket for further connections, -1 where there can be none. */
  listenFd: number;
  /** From where one may connect there; from anywhere if it is empty. */
  allow: readonly AllowRule[];
  /** Connections that came with the main one and have said nothing yet. They are closed here. */
  early: readonly number[];
  /** Has a thread read a push channel, which it closes. */
  openPush: (fd: number) => void;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
  warn: Warn;
}

/** A connection whose head has not been read in full. */
interface Unproven {
  fd: number;
  /** Which place it has: a slot of the poll set, and room for its head. */
  seat: number;
  /** Bytes of the head that have been read. */
  got: number;
}

export class FurtherConnections {
  readonly #options: FurtherOptions;
  readonly #openUrgent: (fd: number) => void;
  readonly #allow: AllowList;
  readonly #poll: PollSet;
  readonly #listenSlot: number;
  /** Slots by seat. */
  readonly #slots: readonly number[];
  readonly #freeSeats: number[] = [];
  readonly #heads = mapScratch(UNPROVEN_MAX * CHANNEL_HEAD_BYTES);
  /** Oldest first. */
  readonly #unproven: Unproven[] = [];
  /** The urgent channel has not been found. */
  #urgentAwaited: boolean;
  #listening: boolean;
  /** Of strangers, who are as many as they like. */
  readonly #warnings: LimitedWarnings;

  /**
   * Only a source that has chosen an urgent channel opens any; else nobody is let in. `openUrgent` is
   * given that one.
   */
  constructor(options: FurtherOptions, poll: PollSet, openUrgent: (fd: number) => void) {
    const chosen = Atomics.load(options.shared.control, WORD.urgentChosen) === 1;
    this.#options = options;
    this.#openUrgent = openUrgent;
    this.#urgentAwaited = chosen;
    this.#warnings = new LimitedWarnings(options.warn);
    this.#allow = new AllowList(options.allow, (message) => this.#warnings.say(message));
    this.#poll = poll;
    this.#listening = chosen && options.listenFd >= 0;
    this.#listenSlot = poll.add(this.#listening ? options.listenFd : -1, POLL.POLLIN);
    this.#slots = Array.from({ length: UNPROVEN_MAX }, () => poll.add(-1, POLL.POLLIN));
    for (let seat = 0; seat < UNPROVEN_MAX; seat++) this.#freeSeats.push(seat);
    for (const fd of options.early) {
      if (chosen) this.#admit(fd);
      else closeDescriptor(fd);
    }
  }

  /** Handles what the last wait of the poll set found. */
  serve(): void {
    for (const each of [...this.#unproven]) {
      // The one before may have been the last one that is awaited, which ended the others.
      if (!this.#unproven.includes(each)) break;
      if (this.#poll.ready(this.#slots[each.seat] ?? -1) !== 0) this.#readHead(each);
    }
    // Who connects while the link is broken is the source that comes back; not to here.
    if (Atomics.load(this.#options.shared.control, WORD.requestsHeld) === HELD.noLink)
      this.#stopListening();
    if (this.#listening && this.#poll.ready(this.#listenSlot) !== 0) this.#accept();
  }

  /** Closes those that are nobody yet. */
  close(): void {
    for (const each of [...this.#unproven]) this.#drop(each);
  }

  #accept(): void {
    const fd = this.#allow.accept(this.#options.listenFd);
    // Whoever waited has gone again, or may not connect.
    if (fd === -ERRNO.EAGAIN) return;
    if (fd < 0) {
      // The socket would stay ready and fail for ever, and the guest needs this thread.
      this.#stopListening();
      this.#options.warn(`Further connections are not accepted any more (${errnoName(-fd)})`);
      return;
    }
    tuneConnection(fd, this.#options.linkTimeoutMs);
    this.#admit(fd);
  }

  #stopListening(): void {
    this.#listening = false;
    this.#poll.set(this.#listenSlot, -1, 0);
  }

  /** Gives a connection a seat, and looks at once whether it is the one that is awaited. */
  #admit(fd: number): void {
    const oldest = this.#unproven[0];
    if (oldest !== undefined && this.#unproven.length === UNPROVEN_MAX) {
      this.#warnings.say(`More than ${UNPROVEN_MAX} silent connections: the oldest was dropped`);
      this.#drop(oldest);
    }
    const seat = this.#freeSeats.pop();
    if (seat === undefined) throw new Error("there are fewer seats than connections");
    this.#poll.set(this.#slots[seat] ?? -1, fd, POLL.POLLIN);
    const unproven = { fd, seat, got: 0 };
    this.#unproven.push(unproven);
    this.#readHead(unproven);
  }

  /** Reads what has come of a head. The token is looked at only as a whole: a guess costs a call. */
  #readHead(unproven: Unproven): void {
    const at = unproven.seat * CHANNEL_HEAD_BYTES;
    const wanted = CHANNEL_HEAD_BYTES - unproven.got;
    const result = readInto(unproven.fd, this.#heads.address + at + unproven.got, wanted);
    if (result === -ERRNO.EAGAIN) return;
    if (result <= 0) {
      this.#drop(unproven);
      return;
    }
    unproven.got += result;
    if (unproven.got < CHANNEL_HEAD_BYTES) return;
    const head = readChannelHead(this.#heads.view, at);
    const { control } = this.#options.shared;
    const knows =
      head !== undefined && (head.token | 0) === Atomics.load(control, WORD.urgentToken);
    if (knows && head.kind === "urgent" && this.#urgentAwaited) {
      this.#proveUrgent(unproven);
    } else if (knows && head.kind === "push" && Atomics.load(control, WORD.pushAwaited) > 0) {
      this.#provePush(unproven);
    } else {
      const stranger = head === undefined ? "is no channel of a migration" : STRANGER;
      const why = knows ? "is one too many" : stranger;
      this.#warnings.say(`A further connection was turned away: it ${why}`);
      this.#drop(unproven);
    }
  }

  /** Once all of the source's channels are found nobody else is awaited any more. */
  #found(): void {
    const { control } = this.#options.shared;
    if (this.#urgentAwaited || Atomics.load(control, WORD.pushAwaited) > 0) return;
    for (const each of [...this.#unproven]) this.#drop(each);
    this.#stopListening();
  }

  /** What follows is read by a thread of its own. Where the link broke meanwhile nobody reads it. */
  #provePush(unproven: Unproven): void {
    const { control } = this.#options.shared;
    this.#release(unproven);
    // In this order: at no time there seem to be none.
    Atomics.add(control, WORD.pushOpen, 1);
    Atomics.sub(control, WORD.pushAwaited, 1);
    if (Atomics.load(control, WORD.pushOver) === 0) this.#options.openPush(unproven.fd);
    else {
      Atomics.sub(control, WORD.pushOpen, 1);
      closeDescriptor(unproven.fd);
    }
    this.#found();
  }

  #proveUrgent(unproven: Unproven): void {
    this.#release(unproven);
    this.#urgentAwaited = false;
    this.#found();
    this.#openUrgent(unproven.fd);
  }

  #release(unproven: Unproven): void {
    this.#poll.set(this.#slots[unproven.seat] ?? -1, -1, 0);
    this.#freeSeats.push(unproven.seat);
    this.#unproven.splice(this.#unproven.indexOf(unproven), 1);
  }

  #drop(unproven: Unproven): void {
    this.#release(unproven);
    closeDescriptor(unproven.fd);
  }
}
