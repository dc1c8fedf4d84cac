/** The threads of a migration at the destination: starts them, wires them, collects their end. */
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import { endConnection, StoppedError } from "../channel/channel.ts";
import type { DestEvent, GuestMemory } from "../dest/context.ts";
import type { MultifdResult } from "../dest/multifd.ts";
import { decideToRun, refuseGuest } from "../dest/refusal.ts";
import type { MultifdCompression } from "../stream/multifd.ts";
import { createDestShared, destCountsOf, DestShared, faultTimesOf, WORD } from "../dest/shared.ts";
import type { DestSharedData } from "../dest/shared.ts";
import type { DestCounts } from "../report/counters.ts";
import type { Histogram } from "../report/histogram.ts";
import { attemptAll } from "../util/attempt-all.ts";
import { isResumed } from "../guests/registry.ts";
import type { ArrivalNews, DestGuestData } from "../guests/registry.ts";
import { MainLink } from "./main-link.ts";
import { Thread } from "./thread.ts";
import type {
  Arrival,
  FaultNews,
  FaultTask,
  IncomingNews,
  IncomingResult,
  IncomingTask,
  ListenTask,
  MultifdTask,
  PushedTask,
  Stamped,
  WarningNews,
} from "./tasks.ts";

/** How long the incoming thread may take to stop; one that waits for a page never does. */
const STOP_GRACE_MS = 300;

/** What a destination crew is started with. */
export interface DestCrewOptions {
  guest: DestGuestData;
  /** A listening socket is the crew's from here on. */
  arrival: Arrival;
  lockMemory: boolean;
  recoverTimeoutMs: number;
  linkTimeoutMs: number;
  /** Connections beside the main one on which the source may push. */
  pushChannels: number;
  /** Where the pages that come are counted, if somebody wants to see it (moved-pages.ts). */
  moved?: SharedArrayBuffer | undefined;
  /** The connection stands; `peer` names who is there. */
  connected: (peer: string) => void;
  event: (event: Stamped<DestEvent> | ArrivalNews | WarningNews) => void;
}

export class DestCrew {
  readonly shared: DestShared;
  readonly #options: DestCrewOptions;
  readonly #data: DestSharedData;
  readonly #stopFd = makeEventDescriptor();
  readonly #faultStopFd = makeEventDescriptor();
  readonly #pushStopFd = makeEventDescriptor();
  readonly #incoming: Thread<IncomingTask, IncomingNews, IncomingResult>;
  readonly #listen: Thread<ListenTask, Stamped<DestEvent>, void>;
  readonly #fault: Thread<FaultTask, FaultNews, void>;
  /** Those that read push channels beside the main one, in the order in which these were found. */
  readonly #pushed: Thread<PushedTask, never, void>[] = [];
  /** Only a guest that is kept comes from sources that send on multifd channels. */
  readonly #multifd: Thread<MultifdTask, WarningNews, MultifdResult> | undefined;
  readonly #multifdEndFd: number;
  #helpers: Promise<unknown>[] = [];
  #failure: unknown;
  readonly #failed = Promise.withResolvers<never>();
  /** The guest's memory, once it is known. */
  memory: GuestMemory | undefined;
  readonly #main: MainLink;
  #others: number[] = [];
  /** What the multifd thread left, once it has. */
  #multifdResult: MultifdResult | undefined;

  constructor(options: DestCrewOptions) {
    this.#options = options;
    this.#data = createDestShared(options.moved);
    this.shared = new DestShared(this.#data);
    this.#main = new MainLink(this.shared, this.#stopFd);
    // Taken over once, it is taken over: whoever gives up, in whatever state, gives nothing back.
    if (isResumed(options.guest)) decideToRun(this.shared);
    this.#incoming = new Thread("incoming", (news) => this.#hear(news));
    this.#listen = new Thread("listen", (news) => options.event(news));
    this.#fault = new Thread("fault", (news) => this.#hearFault(news));
    const keeps =
      options.guest.kind === "snapshot" &&
      !isResumed(options.guest) &&
      options.arrival.kind === "listen";
    this.#multifd = keeps ? new Thread("multifd", (news) => options.event(news)) : undefined;
    this.#multifdEndFd = keeps ? makeEventDescriptor() : -1;
    this.#failed.promise.catch(() => {
      // Nobody may be waiting for it any more; it is reported by whoever is.
    });
  }

  /** Receives the guest. Resolves when it is whole; rejects with the first thread's failure. */
  async run(): Promise<IncomingResult> {
    const { guest, arrival, lockMemory, linkTimeoutMs } = this.#options;
    try {
      const incoming = this.#incoming.run({
        guest,
        shared: this.#data,
        arrival,
        stopFd: this.#stopFd,
        multifdEndFd: this.#multifdEndFd,
        lockMemory,
        linkTimeoutMs,
        pushChannels: this.#options.pushChannels,
      });
      // If a helper fails, the incoming thread may sit in a fault that nobody will ever serve.
      const result = await Promise.race([incoming, this.#failed.promise]);
      // A completion in precopy never started them.
      if (result.completedIn === "precopy") this.stop();
      // A push channel may be found late, when all that comes on it is here already.
      for (let known = -1; known !== this.#helpers.length;) {
        known = this.#helpers.length;
        await Promise.allSettled(this.#helpers);
      }
      return result;
    } catch (error) {
      this.#raiseStop();
      if (this.refuse()) this.#main.tellRefusal();
      throw this.#failure ?? error;
    }
  }

  #hear(news: IncomingNews): void {
    switch (news.kind) {
      case "connected":
        this.#main.fd = news.fd;
        this.#main.peer = news.peer;
        this.#others = news.others;
        this.#options.connected(news.peer);
        break;
      case "turnedAway":
        this.#others = [];
        break;
      case "resuming":
        this.#main.fd = news.fd;
        break;
      case "memory":
        this.memory = news.memory;
        this.#startHelpers(news.memory);
        break;
      default:
        this.#options.event(news);
    }
  }

  #hearFault(news: FaultNews): void {
    if (news.kind === "push channel") this.#readPushChannel(news.fd);
    else this.#options.event(news);
  }

  /** Starts a thread for a push channel that was found. */
  #readPushChannel(fd: number): void {
    const { memory } = this;
    if (memory === undefined) throw new Error("a push channel before the list of RAM blocks");
    const thread = new Thread<PushedTask, never, void>("pushed", () => {});
    this.#pushed.push(thread);
    const task = thread.run({
      guest: this.#options.guest,
      shared: this.#data,
      memory,
      index: this.#pushed.length,
      fd,
      mainFd: this.#main.fd,
      linkTimeoutMs: this.#options.linkTimeoutMs,
      stopFd: this.#pushStopFd,
      peer: this.#main.peer,
    });
    this.#helpers.push(task.catch((error: unknown) => this.#giveUp(error)));
  }

  /** The listen and fault threads learn of the memory, and park until LISTEN. */
  #startHelpers(memory: GuestMemory): void {
    const { guest, arrival, linkTimeoutMs, recoverTimeoutMs } = this.#options;
    const common = {
      guest,
      shared: this.#data,
      memory,
      fd: this.#main.fd,
      stopFd: this.#stopFd,
      faultStopFd: this.#faultStopFd,
      pushStopFd: this.#pushStopFd,
      peer: this.#main.peer,
      allow: arrival.kind === "listen" ? arrival.allow : [],
      linkTimeoutMs,
    };
    const listenFd = arrival.kind === "listen" ? arrival.fd : -1;
    const multifd = memory.sourceIsOurs ? undefined : this.#multifd;
    // Other connections of ours may be its urgent channel, those of a QEMU its multifd channels.
    const early = multifd === undefined ? this.#others : [];
    const tasks: Promise<unknown>[] = [
      this.#listen.run({ ...common, listenFd, recoverTimeoutMs }),
      this.#fault.run({ ...common, listenFd, early }),
    ];
    if (multifd !== undefined) {
      const task = { ...common, listenFd, early: this.#others, endFd: this.#multifdEndFd };
      tasks.push(multifd.run(task).then((result) => (this.#multifdResult = result)));
    }
    this.#helpers = tasks.map((task) => task.catch((error: unknown) => this.#giveUp(error)));
  }

  /** What all threads have counted together. */
  get counts(): DestCounts {
    return destCountsOf(this.#data);
  }

  /** Latencies of all remote faults. */
  get faultTimes(): Histogram {
    return faultTimesOf(this.#data);
  }

  /** Connections on which the push came, the main one among them. */
  get pushChannels(): number {
    return Atomics.load(this.shared.control, WORD.pushChannels);
  }

  /** The multifd channels of the source that was received, if it had any. */
  get multifd(): { channels: number; compression: MultifdCompression } | null {
    const { channels = 0, compression = "none" } = this.#multifdResult ?? {};
    return channels === 0 ? null : { channels, compression };
  }

  /** A helper failed: the incoming thread, which waits for it, must know. */
  #giveUp(error: unknown): void {
    if (Atomics.load(this.shared.control, WORD.stop) === 1) return;
    this.#failure ??= error;
    Atomics.store(this.shared.control, WORD.failed, 1);
    this.#failed.reject(error);
  }

  /** Decides that the guest will not run here; false when it runs here already. */
  refuse(): boolean {
    return refuseGuest(this.shared);
  }

  /** Gives up as soon as possible; `run` then rejects. */
  stop(): void {
    Atomics.store(this.shared.control, WORD.stop, 1);
    this.#raiseStop();
    setTimeout(() => this.#failed.reject(new StoppedError()), STOP_GRACE_MS).unref();
  }

  #raiseStop(): void {
    raiseEventDescriptor(this.#stopFd);
    raiseEventDescriptor(this.#faultStopFd);
    raiseEventDescriptor(this.#pushStopFd);
  }

  /** As of MainLink. */
  tellGone(): void {
    this.#main.tellGone();
  }

  /** Closes what is open, the listening socket too, and ends the threads; after `run`. */
  end(): void {
    const threads = [this.#incoming, this.#listen, this.#fault, this.#multifd, ...this.#pushed];
    // A thread that still is at work must not find another file under its descriptors, nor nothing
    // under the receive buffer, which the incoming thread has mapped; it waits for a page that
    // nobody will bring, and ends with the process.
    if (threads.some((thread) => thread?.busy)) return;
    for (const thread of threads) thread?.end();
    const { arrival } = this.#options;
    const descriptors = [
      arrival.kind === "listen" ? arrival.fd : -1,
      // Once started, the fault or the multifd thread has closed them, or left them to be closed.
      ...(this.#helpers.length === 0 ? this.#others : []),
      ...(this.#multifdResult?.descriptors ?? []),
      ...[this.#stopFd, this.#faultStopFd, this.#pushStopFd, this.#multifdEndFd],
    ].filter((fd) => fd >= 0);
    attemptAll([
      () => {
        if (this.#main.fd >= 0) endConnection(this.#main.fd);
      },
      ...descriptors.map((fd) => () => closeDescriptor(fd)),
    ]);
  }
}
