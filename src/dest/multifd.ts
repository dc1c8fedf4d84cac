/**
 * The multifd thread: reads the channels on which a QEMU with the capability `multifd` sends the
 * pages of precopy (QEMU's `multifd_recv_thread`, one thread for all channels here). It also keeps
 * the source's silent connections open, of which one may be its preempt channel: nothing comes on
 * that one while nothing is asked for.
 *
 * How many channels there are is not said in the stream. Numbers are: those of the channels and of
 * the packets on all of them, so a flush is passed only when nothing is missing before it.
 */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { closeDescriptor, POLL, PollSet } from "../../syscalls/descriptor.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { acceptConnection, peekBytes } from "../../syscalls/socket.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import type { Warn } from "../channel/limited-warnings.ts";
import { BACKLOG } from "../channel/listen.ts";
import { tuneConnection } from "../channel/tune.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { MULTIFD_CHANNELS_MAX, MULTIFD_MAGIC } from "../stream/constants.ts";
import type { MultifdCompression } from "../stream/multifd.ts";
import { StreamError } from "../util/errors.ts";
import { awaitThread, checkStop, STOP_CHECK_MS } from "./context.ts";
import type { PageSink, ReceiveBuffer } from "./guest.ts";
import { MultifdChannel } from "./multifd-channel.ts";
import { PacketLedger } from "./packet-ledger.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** Connections that may be open without having said anything. */
const SILENT_MAX = 16;
const MAGIC_BYTES = 4;

/** What the multifd thread works with. */
export interface MultifdReceiverOptions {
  shared: DestShared;
  blocks: readonly RamBlock[];
  /** Listening socket of the migration. */
  listenFd: number;
  /** Connections that came with the main one. */
  early: readonly number[];
  /** Raised when this thread is to give up. */
  stopFd: number;
  /** Raised when no more pages come on multifd channels. */
  endFd: number;
  /** Whether a connection comes from where the main one does. */
  isSource: (fd: number) => boolean;
  openChannel: (fd: number) => Channel;
  /** Makes a sink for pages that lie in `buffer`. */
  openSink: (buffer: ReceiveBuffer) => PageSink;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
  warn: Warn;
}

/** What is left of the channels when the last page has come: connections that stay open. */
export interface MultifdResult {
  descriptors: number[];
  channels: number;
  compression: MultifdCompression;
}

export class MultifdReceiver {
  readonly #options: MultifdReceiverOptions;
  readonly #channels: MultifdChannel[] = [];
  readonly #silent: number[] = [];
  readonly #ledger = new PacketLedger();
  readonly #poll = new PollSet();
  readonly #peek = mapScratch(MAGIC_BYTES);
  readonly #stopSlot: number;
  readonly #endSlot: number;
  readonly #listenSlot: number;
  readonly #slots: readonly number[];
  /** Flushes that have been passed. */
  #settled = 0;
  readonly #warnings: LimitedWarnings;

  constructor(options: MultifdReceiverOptions) {
    this.#options = options;
    this.#warnings = new LimitedWarnings(options.warn);
    this.#stopSlot = this.#poll.add(options.stopFd, POLL.POLLIN);
    this.#endSlot = this.#poll.add(options.endFd, POLL.POLLIN);
    this.#listenSlot = this.#poll.add(options.listenFd, POLL.POLLIN);
    const length = MULTIFD_CHANNELS_MAX + SILENT_MAX;
    this.#slots = Array.from({ length }, () => this.#poll.add(-1, 0));
  }

  /** Receives until no more pages come on these channels. Closes all connections if it fails. */
  run(): MultifdResult {
    try {
      for (const fd of this.#options.early) this.#admit(fd);
      while (!this.#ended) {
        // A source that is done closes its channels, maybe before the main one has told so.
        if (this.#atFlush || this.#closed !== undefined) this.#passFlush();
        else this.#turn();
      }
      this.#end();
    } catch (error) {
      this.#descriptors.forEach(closeDescriptor);
      throw error;
    }
    const compression = this.#channels.find((each) => each.compression !== "none")?.compression;
    return {
      descriptors: this.#descriptors,
      channels: this.#channels.length,
      compression: compression ?? "none",
    };
  }

  get #descriptors(): number[] {
    return [...this.#channels.map(({ channel }) => channel.fd), ...this.#silent];
  }

  get #ended(): boolean {
    return Atomics.load(this.#options.shared.control, WORD.multifdEnded) === 1;
  }

  /** Whether every packet before the next flush has been read: each channel waits at its SYNC. */
  get #atFlush(): boolean {
    return this.#ledger.whole && this.#channels.every(({ syncs }) => syncs > this.#settled);
  }

  /** A channel that was closed before the next SYNC, if there is one. */
  get #closed(): MultifdChannel | undefined {
    return this.#channels.find(({ closed, syncs }) => closed && syncs <= this.#settled);
  }

  /** Waits until the main channel is there too, and lets both sides go on. */
  #passFlush(): void {
    const { shared } = this.#options;
    awaitThread(shared, (ms) => shared.multifdFlush.wait(ms));
    if (this.#ended) return;
    // Whoever sent something before the flush has connected before it.
    this.#acceptAll();
    while (!this.#atFlush) {
      if (this.#closed !== undefined) throw closedError(this.#closed);
      this.#turn();
    }
    this.#settled++;
    shared.multifdSettled.post();
    // What was read behind a SYNC waits in the buffers, of which no poll tells.
    for (const channel of this.#channels) this.#load(channel);
  }

  /** The source may send one more SYNC, which no flush belongs to. */
  #end(): void {
    this.#poll.set(this.#endSlot, -1, 0);
    this.#acceptAll();
    const last = (): number => Math.max(...this.#channels.map(({ syncs }) => syncs));
    const pending = (each: MultifdChannel): boolean => each.unsynced || each.syncs < last();
    while (!this.#ledger.whole || this.#channels.some(pending)) {
      const closed = this.#channels.find((each) => each.closed && pending(each));
      if (closed !== undefined) throw closedError(closed);
      this.#turn();
    }
    this.#options.shared.multifdSettled.post();
  }

  /** Waits for something to come, and takes it. */
  #turn(): void {
    const { shared } = this.#options;
    const reading = this.#channels.filter(({ closed, syncs }) => {
      return !closed && syncs <= this.#settled;
    });
    const silent = [...this.#silent];
    const watched = [...reading.map(({ channel }) => channel.fd), ...silent];
    this.#slots.forEach((slot, i) => this.#poll.set(slot, watched[i] ?? -1, POLL.POLLIN));
    this.#poll.wait(STOP_CHECK_MS);
    if (this.#poll.ready(this.#stopSlot) !== 0) throw new StoppedError();
    checkStop(shared);
    const ready = (index: number): boolean => this.#poll.ready(this.#slots[index] ?? -1) !== 0;
    reading.forEach((channel, i) => ready(i) && this.#load(channel));
    silent.forEach((fd, i) => ready(reading.length + i) && this.#judge(fd));
    if (this.#poll.ready(this.#listenSlot) !== 0) this.#acceptAll();
  }

  /** Accepts whoever waits by now; those who come meanwhile may be without end. */
  #acceptAll(): void {
    const { listenFd, linkTimeoutMs } = this.#options;
    for (let i = 0; i <= BACKLOG; i++) {
      const fd = acceptConnection(listenFd);
      if (fd < 0) return;
      tuneConnection(fd, linkTimeoutMs);
      this.#admit(fd);
    }
  }

  /** A connection is nobody until it speaks: it may be the preempt channel, which does not. */
  #admit(fd: number): void {
    if (!this.#options.isSource(fd)) {
      this.#warnings.say("A connection from elsewhere than the source's was turned away");
      closeDescriptor(fd);
      return;
    }
    this.#silent.push(fd);
    this.#judge(fd);
    const [oldest] = this.#silent;
    if (oldest === undefined || this.#silent.length <= SILENT_MAX) return;
    this.#warnings.say(`More than ${SILENT_MAX} silent connections: the oldest was dropped`);
    this.#drop(oldest);
  }

  /** Looks at the first bytes of a silent connection, without taking them. */
  #judge(fd: number): void {
    const { address, view } = this.#peek;
    const got = peekBytes(fd, address, MAGIC_BYTES);
    if (got === -ERRNO.EAGAIN) return;
    if (got < MAGIC_BYTES || view.getUint32(0) !== MULTIFD_MAGIC) {
      if (got > 0) this.#warnings.say("A further connection was turned away: it is no channel");
      this.#drop(fd);
      return;
    }
    if (this.#channels.length === MULTIFD_CHANNELS_MAX) {
      const what = `The source has more than ${MULTIFD_CHANNELS_MAX} multifd channels`;
      const hint = "at the QEMU: migrate_set_parameter multifd-channels 8";
      throw new StreamError("UNSUPPORTED", what, { hint });
    }
    this.#silent.splice(this.#silent.indexOf(fd), 1);
    const { openChannel, openSink, blocks } = this.#options;
    const channel: MultifdChannel = new MultifdChannel({
      channel: openChannel(fd),
      blocks,
      openSink,
      note: (number, pages) => this.#note(channel, number, pages),
    });
    this.#channels.push(channel);
    this.#load(channel);
  }

  #drop(fd: number): void {
    this.#silent.splice(this.#silent.indexOf(fd), 1);
    closeDescriptor(fd);
  }

  /** Loads what has come on a channel, up to its next SYNC. */
  #load(channel: MultifdChannel): void {
    const before = channel.channel.bytesRead;
    for (;;) {
      const end = channel.load();
      if (end === "hello") this.#checkNumber(channel);
      if (end === "needs more" || channel.syncs > this.#settled) break;
    }
    this.#account(channel, channel.channel.bytesRead - before);
  }

  /** A packet of a round that is over would bring back what newer ones have overwritten. */
  #note(channel: MultifdChannel, number: number, pages: number): void {
    this.#ledger.note(number);
    if (pages === 0 || channel.syncs >= this.#settled) return;
    const what = `Pages on multifd channel ${channel.id} came after their round was over`;
    throw new StreamError("UNEXPECTED", what, { hint: "migrate again" });
  }

  #checkNumber(channel: MultifdChannel): void {
    if (this.#channels.every((other) => other === channel || other.id !== channel.id)) return;
    throw new StreamError("BAD_VALUE", `Two multifd channels have the number ${channel.id}`);
  }

  #account(channel: MultifdChannel, bytes: number): void {
    const { counters } = this.#options.shared;
    counters.add(DEST.bytesMultifd, bytes);
    counters.add(DEST.pagesMultifd, channel.normal);
    counters.add(DEST.pagesMultifdZero, channel.zero);
    channel.normal = 0;
    channel.zero = 0;
  }
}

function closedError({ id }: MultifdChannel): ChannelError {
  const what = `The source closed multifd channel ${id ?? "of no number"}`;
  return new ChannelError("PEER_CLOSED", `${what} before it had sent everything`);
}
