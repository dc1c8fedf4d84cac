/** The threads of a migration at the source: starts them, wires them, and collects their end. */
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import { endConnection } from "../channel/channel.ts";
import { openSourceGuest, sourceBlocks } from "../guests/registry.ts";
import type { SourceGuestData } from "../guests/registry.ts";
import type { JournalRecord } from "../journal/record.ts";
import { cancel } from "../source/commitment.ts";
import type { SourceEvent, SourceSettings } from "../source/context.ts";
import { oweEverything } from "../source/owed.ts";
import { prepareResume } from "../source/resume.ts";
import { losePushChannel, tellPushChannels } from "../source/push-channels.ts";
import {
  createSourceShared,
  PUSHING,
  SourceShared,
  sourceCountsOf,
  WORD,
} from "../source/shared.ts";
import type { SourceSharedData } from "../source/shared.ts";
import type { SourceCounts } from "../report/counters.ts";
import { newIdentity } from "../stream/identity.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import { errorRecord, PostcopyError } from "../util/errors.ts";
import { Thread, ThreadError } from "./thread.ts";
import type {
  MigrationNews,
  MigrationResult,
  MigrationTask,
  PushTask,
  ReturnPathTask,
  Route,
  Stamped,
} from "./tasks.ts";

/** What a source crew is started with. */
export interface SourceCrewOptions {
  guest: SourceGuestData;
  /** Of a guest in files, which another process may go on sending; undefined for any other. */
  identity?: GuestIdentity | undefined;
  /** Target pages of the recorded working set, counted over all blocks. */
  workingSet: Uint32Array | undefined;
  /** What of it is pushed first, in its order. */
  replay: Uint32Array;
  /** Where the pages that go are counted, if somebody wants to see it (moved-pages.ts). */
  moved?: SharedArrayBuffer | undefined;
  /** Hold the push back while the guest asks for pages, to see which it needs first. */
  watch: boolean;
  /** Names the peer in errors. */
  peer: string;
  /** Nobody is there yet; it is tried again. */
  waiting: () => void;
  /** The connection stands. */
  connected: () => void;
  event: (event: Stamped<SourceEvent>) => void;
}

/** How the return path ends when only its link does. */
const LINK_ERRORS: ReadonlySet<string> = new Set(["ChannelError", "StoppedError"]);
/** How long a thread may go on when the other one has ended by itself, maybe with a lock held. */
const SURVIVOR_GRACE_MS = 2000;

export class SourceCrew {
  readonly shared: SourceShared;
  /** Why the return path ended, if it failed: often nearer to the cause than what follows. */
  returnPathError: unknown;
  readonly #options: SourceCrewOptions;
  readonly #identity: GuestIdentity;
  readonly #data: SourceSharedData;
  /** Ends the waits of one connection's threads. */
  #stopFd = makeEventDescriptor();
  readonly #migration: Thread<MigrationTask, MigrationNews, MigrationResult>;
  readonly #returnPath = new Thread<ReturnPathTask, never, void>("return-path", () => {});
  /** Those that push on channels beside the main one, and these. */
  readonly #pushing: { thread: Thread<PushTask, never, void>; fd: number; end: Promise<void> }[] =
    [];
  /** What made one of those cut the link. */
  #pushError: unknown;
  #settings: SourceSettings | undefined;
  /** Connections on which was pushed, the main one among them. */
  pushChannels = 1;
  #returnPathEnd: Promise<void> = Promise.resolve();
  /** Rejects when the return path's thread has ended by itself, and that did not end the other. */
  readonly #lost = Promise.withResolvers<never>();
  #fd = -1;

  constructor(options: SourceCrewOptions) {
    const blocks = sourceBlocks(options.guest);
    this.#options = options;
    this.#identity = options.identity ?? newIdentity();
    this.#data = createSourceShared(blocks, options.moved);
    this.shared = new SourceShared(this.#data, blocks);
    // Ahead of the connection: the first touch of the bitmaps of many GiB takes milliseconds.
    if (options.guest.kind !== "stress") oweEverything(this.shared, blocks);
    if (options.workingSet !== undefined) this.shared.awaitPages(options.workingSet, blocks);
    this.#migration = new Thread("migration", (news) => this.#hear(news));
    this.#lost.promise.catch(() => {
      // Nobody may be waiting for it any more.
    });
  }

  /**
   * Runs the migration. Resolves when both threads have ended. `record` is written when the guest is
   * about to be handed over; what becomes of it then is the caller's to say.
   */
  async run(
    route: Route,
    settings: SourceSettings,
    record: JournalRecord | null,
  ): Promise<MigrationResult> {
    return await this.#connect(route, settings, false, record);
  }

  /** Sends what the destination lacks, over a new connection; after a run that ended as paused. */
  async resume(route: Route, settings: SourceSettings): Promise<MigrationResult> {
    this.#closeLink();
    this.#stopFd = makeEventDescriptor();
    this.returnPathError = undefined;
    this.#pushError = undefined;
    prepareResume(this.shared, sourceBlocks(this.#options.guest));
    return await this.#connect(route, settings, true, null);
  }

  async #connect(
    route: Route,
    settings: SourceSettings,
    resume: boolean,
    record: JournalRecord | null,
  ): Promise<MigrationResult> {
    const { guest, peer, replay, watch } = this.#options;
    this.#settings = settings;
    const migration = this.#migration.run({
      guest,
      identity: this.#identity,
      shared: this.#data,
      settings,
      replay,
      watch,
      route,
      resume,
      record,
      stopFd: this.#stopFd,
      peer,
    });
    const ended = Promise.race([migration, this.#lost.promise]);
    const result = await ended.catch((error: unknown) => this.#giveUp(error, resume));
    // The return path ends with SHUT; after a failure it is told to.
    if (!result.ok) raiseEventDescriptor(this.#stopFd);
    tellPushChannels(this.shared, PUSHING.over);
    await Promise.race([
      Promise.all(this.#pushing.map(({ end }) => end)),
      this.#lost.promise.catch(() => {}),
    ]);
    await Promise.race([this.#returnPathEnd, this.#lost.promise.catch(() => {})]);
    if (result.ok || !result.paused) return result;
    if (this.#pushError !== undefined) {
      const cause = errorRecord(this.#pushError);
      return { ...result, paused: false, error: { ...result.error, cause } };
    }
    // A peer that breaks the protocol would do so again, and a thread that ended is no more.
    const why = this.returnPathError;
    const isLink = why instanceof ThreadError && LINK_ERRORS.has(why.name);
    const broken = why !== undefined && !isLink;
    return { ...result, paused: !broken };
  }

  #hear(news: MigrationNews): void {
    if (news.kind === "waiting") {
      this.#options.waiting();
      return;
    }
    if (news.kind === "push channel") {
      this.#pushOn(news.fd);
      return;
    }
    if (news.kind !== "connected") {
      this.#options.event(news);
      return;
    }
    this.#fd = news.fd;
    const { guest, peer } = this.#options;
    this.#returnPathEnd = this.#returnPath
      .run({ guest, shared: this.#data, fd: news.fd, stopFd: this.#stopFd, peer })
      .catch((error: unknown) => {
        this.returnPathError = error;
        if (!(error instanceof ThreadError)) this.#loseThread(error);
      });
    this.#options.connected();
  }

  /** Starts a thread that pushes on a connection. */
  #pushOn(fd: number): void {
    const { guest, peer } = this.#options;
    const settings = this.#settings;
    if (settings === undefined) throw new Error("a push channel without a migration");
    const thread = new Thread<PushTask, never, void>("push", () => {});
    const index = this.#pushing.length + 1;
    const end = thread
      .run({
        ...{ guest, settings, index, fd, peer },
        ...{ shared: this.#data, mainFd: this.#fd, stopFd: this.#stopFd },
      })
      .catch((error: unknown) => {
        this.#pushError = error;
        // It may never have begun, and the main channel's thread waits for it.
        losePushChannel(this.shared, this.#fd);
        if (!(error instanceof ThreadError)) this.#loseThread(error);
      });
    this.#pushing.push({ thread, fd, end });
    this.pushChannels++;
  }

  /** A thread has ended by itself: what it owed to the other one it will never do. */
  #loseThread(error: unknown): void {
    this.shared.finished.set();
    setTimeout(() => this.#lost.reject(error), SURVIVOR_GRACE_MS).unref();
  }

  /**
   * A thread ended by itself. Where the guest is follows from the commitment alone: if that is still
   * open, it never will be made, and the guest goes on here.
   */
  #giveUp(cause: unknown, resume: boolean): MigrationResult {
    this.#loseThread(cause);
    const isHere = !resume && cancel(this.shared);
    if (isHere) openSourceGuest(this.#options.guest).resume();
    const what = isHere
      ? "A thread of this program failed before the guest could leave; it goes on here"
      : "A thread of this program failed; the guest is at the destination, and the rest only here";
    const error = errorRecord(new PostcopyError("THREAD_FAILED", what, { cause }));
    return { ok: false, place: isHere ? "source" : "destination", paused: false, error };
  }

  /** What all threads have counted together. */
  get counts(): SourceCounts {
    return sourceCountsOf(this.#data);
  }

  /** Whether the urgent channel is open. */
  get urgentChannel(): boolean {
    return Atomics.load(this.shared.control, WORD.urgentFd) >= 0;
  }

  /** Switches over as soon as the piece of work under way is done. */
  switchover(): void {
    Atomics.store(this.shared.control, WORD.switchoverNow, 1);
  }

  /** Decides that the guest stays here, and gives up; false when it is too late for that. */
  cancel(): boolean {
    if (!cancel(this.shared)) return false;
    this.stop();
    return true;
  }

  /** Gives up as soon as possible; `run` then resolves with a failure. */
  stop(): void {
    Atomics.store(this.shared.control, WORD.stop, 1);
    raiseEventDescriptor(this.#stopFd);
  }

  /** Closes what is open and ends the threads; after `run`. */
  end(): void {
    // A thread that still is at work must not find another file under its descriptors; it ends with
    // the process.
    const threads = [this.#migration, this.#returnPath, ...this.#pushing.map((p) => p.thread)];
    if (threads.some((thread) => thread.busy)) return;
    this.#migration.end();
    this.#returnPath.end();
    this.#closeLink();
  }

  #closeLink(): void {
    const urgentFd = Atomics.exchange(this.shared.control, WORD.urgentFd, -1);
    const further = this.#pushing.splice(0);
    for (const { thread } of further) thread.end();
    for (const fd of [this.#fd, urgentFd, ...further.map((push) => push.fd)]) {
      if (fd >= 0) endConnection(fd);
    }
    this.#fd = -1;
    closeDescriptor(this.#stopFd);
  }
}
