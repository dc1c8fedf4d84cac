/**
 * `dest --from`: the source of a kept guest in the very process that receives it. Its crew is that of
 * every source, and reaches the destination's threads over a socket that nobody else can reach.
 */
import type { Peer } from "../channel/address.ts";
import { openListener } from "../channel/listen.ts";
import { PrivateSocket } from "../channel/private-socket.ts";
import { SourceCrew } from "../threads/source-crew.ts";
import type { Route } from "../threads/tasks.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import type { ThreadError } from "../threads/thread.ts";
import { errorRecord } from "../util/errors.ts";
import { AFTERMATH, LINK_CODES } from "./broken-link.ts";
import type { Output } from "./common.ts";
import type { PageFeed } from "./fill-vmm.ts";
import type { StoredWord } from "./guest-words.ts";
import type { OpenedArrival } from "./peers.ts";
import type { StoredGuest } from "./opened-guest.ts";
import type { DestRun } from "./run-dest.ts";
import { sourceSettings } from "./source-flags.ts";
import type { SourceOptions } from "./source-flags.ts";
import { failureOf } from "./source-report.ts";
import { openStoredGuest, recordWorkingSet } from "./stored-guest.ts";
import type { StoredOptions } from "./stored-guest.ts";
import { deepestCause } from "./tls-failure.ts";

const DIRECTORY_PREFIX = "postcopy-from-";
/** The listening socket is there before who connects. */
const PATIENCE_MS = 0;

type OwnSourceOptions = SourceOptions & StoredOptions;

export class OwnSource implements PageFeed {
  /** Where the destination waits for it. */
  readonly arrival: OpenedArrival;
  readonly peer: Extract<Peer, { kind: "unix" }>;
  readonly identity: GuestIdentity;
  readonly #stored: StoredGuest;
  readonly #options: OwnSourceOptions;
  readonly #socket = new PrivateSocket(DIRECTORY_PREFIX);
  readonly #crew: SourceCrew;

  private constructor(stored: StoredGuest, options: OwnSourceOptions, output: Output) {
    this.#stored = stored;
    this.#options = options;
    const { address } = this.#socket;
    this.peer = { kind: "unix", path: address.path };
    const { fd } = openListener([address]);
    this.arrival = {
      arrival: { kind: "listen", fd, allow: [], alone: true },
      text: stored.guestText,
      source: stored.guestText,
      path: undefined,
      bridge: undefined,
    };
    const { guest, identity, workingSet, replay, watch } = stored;
    this.identity = identity;
    this.#crew = new SourceCrew({
      ...{ guest, identity, workingSet, replay, watch },
      peer: "the destination in this process",
      waiting: () => {},
      connected: () => {},
      event: (event) => {
        if (event.kind === "warning") output.warn("SOURCE_WARNING", event.message);
      },
    });
  }

  /** Opens the guest, and the way to it. @throws what `openStoredGuest` does. */
  static async open(
    word: StoredWord,
    options: OwnSourceOptions,
    output: Output,
  ): Promise<OwnSource> {
    return new OwnSource(await openStoredGuest(word, options, output), options, output);
  }

  /** Sends the guest to `run`, and records what it asked for. @throws why it did not become whole. */
  async fill(run: DestRun, resumes: boolean): Promise<void> {
    const sending = this.#send(resumes);
    void sending.then((failure) => {
      if (failure !== undefined) run.giveUp(failure);
    });
    try {
      await run.receive();
    } catch (error) {
      this.#crew.stop();
      // What is wrong with the guest's files is nearer to the cause than a link that broke.
      throw (await sending) ?? error;
    }
    await sending;
    // A part of what was asked for went to the process before.
    if (resumes) return;
    const requested = this.#crew.shared.requested();
    recordWorkingSet(
      { ...this.#stored, options: this.#options },
      { failure: undefined, requested },
    );
  }

  /** Resolves with why it failed, if that is more than what the other end has done. */
  async #send(resumes: boolean): Promise<ThreadError | undefined> {
    const settings = { ...sourceSettings(this.#options), preempt: false };
    const addresses = [this.#socket.address];
    const route: Route = { kind: "connect", addresses, patienceMs: PATIENCE_MS };
    const crew = this.#crew;
    const result = await (resumes ? crew.resume(route, settings) : crew.run(route, settings, null));
    if (result.ok) return undefined;
    // That the migration failed, and where the guest is, is the destination's to say.
    const failure = await failureOf(this.#crew, result.error.cause ?? result.error, undefined);
    const { code } = deepestCause(errorRecord(failure));
    return AFTERMATH.has(code) || LINK_CODES.has(code) ? undefined : failure;
  }

  /** Ends its threads; after `fill`, or in its place. */
  close(): Promise<void> {
    this.#crew.end();
    this.#socket.remove();
    return Promise.resolve();
  }
}
