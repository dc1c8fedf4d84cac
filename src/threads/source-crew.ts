/** The threads of a migration at the source: starts them, wires them, and collects their end. */
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import { endConnection } from "../channel/channel.ts";
import { sourceBlocks } from "../guests/registry.ts";
import type { SourceGuestData } from "../guests/registry.ts";
import { cancel } from "../source/commitment.ts";
import type { SourceEvent, SourceSettings } from "../source/context.ts";
import { oweEverything } from "../source/owed.ts";
import { prepareResume } from "../source/resume.ts";
import { createSourceShared, SourceShared, WORD } from "../source/shared.ts";
import type { SourceSharedData } from "../source/shared.ts";
import { Thread, ThreadError } from "./thread.ts";
import type {
  MigrationNews,
  MigrationResult,
  MigrationTask,
  ReturnPathTask,
  Route,
  Stamped,
} from "./tasks.ts";

/** What a source crew is started with. */
export interface SourceCrewOptions {
  guest: SourceGuestData;
  /** Target pages of the recorded working set, counted over all blocks. */
  workingSet: Uint32Array | undefined;
  /** What of it is pushed first, in its order. */
  replay: Uint32Array;
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

export class SourceCrew {
  readonly shared: SourceShared;
  /** Why the return path ended, if it failed: often nearer to the cause than what follows. */
  returnPathError: unknown;
  readonly #options: SourceCrewOptions;
  readonly #data: SourceSharedData;
  /** Ends the waits of one connection's threads. */
  #stopFd = makeEventDescriptor();
  readonly #migration: Thread<MigrationTask, MigrationNews, MigrationResult>;
  readonly #returnPath = new Thread<ReturnPathTask, never, void>("return-path", () => {});
  #returnPathEnd: Promise<void> = Promise.resolve();
  #fd = -1;

  constructor(options: SourceCrewOptions) {
    const blocks = sourceBlocks(options.guest);
    this.#options = options;
    this.#data = createSourceShared(blocks);
    this.shared = new SourceShared(this.#data, blocks);
    // Ahead of the connection: the first touch of the bitmaps of many GiB takes milliseconds.
    if (options.guest.kind !== "stress") oweEverything(this.shared, blocks);
    if (options.workingSet !== undefined) this.shared.awaitPages(options.workingSet, blocks);
    this.#migration = new Thread("migration", (news) => this.#hear(news));
  }

  /** Runs the migration. Resolves when both threads have ended. */
  async run(route: Route, settings: SourceSettings): Promise<MigrationResult> {
    return await this.#connect(route, settings, false);
  }

  /** Sends what the destination lacks, over a new connection; after a run that ended as paused. */
  async resume(route: Route, settings: SourceSettings): Promise<MigrationResult> {
    this.#closeLink();
    this.#stopFd = makeEventDescriptor();
    this.returnPathError = undefined;
    prepareResume(this.shared, sourceBlocks(this.#options.guest));
    return await this.#connect(route, settings, true);
  }

  async #connect(
    route: Route,
    settings: SourceSettings,
    resume: boolean,
  ): Promise<MigrationResult> {
    const { guest, peer, replay } = this.#options;
    const result = await this.#migration.run({
      guest,
      shared: this.#data,
      settings,
      replay,
      route,
      resume,
      stopFd: this.#stopFd,
      peer,
    });
    // The return path ends with SHUT; after a failure it is told to.
    if (!result.ok) raiseEventDescriptor(this.#stopFd);
    await this.#returnPathEnd;
    if (result.ok || !result.paused) return result;
    // A peer that breaks the protocol would do so again.
    const why = this.returnPathError;
    const broken = why instanceof ThreadError && !LINK_ERRORS.has(why.name);
    return { ...result, paused: !broken };
  }

  #hear(news: MigrationNews): void {
    if (news.kind === "waiting") {
      this.#options.waiting();
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
      });
    this.#options.connected();
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
    this.#migration.end();
    this.#returnPath.end();
    this.#closeLink();
  }

  #closeLink(): void {
    const urgentFd = Atomics.exchange(this.shared.control, WORD.urgentFd, -1);
    for (const fd of [this.#fd, urgentFd]) if (fd >= 0) endConnection(fd);
    this.#fd = -1;
    closeDescriptor(this.#stopFd);
  }
}
