/** Sends one guest: starts the crew, shows what happens, obeys the operator, makes the report. */
import { openSourceGuest, sourceBlocks } from "../guests/registry.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import { SOURCE, SOURCE_PHASES } from "../report/counters.ts";
import type { SourcePhase } from "../report/counters.ts";
import { sourceProgress, sourceResidency } from "../report/summary.ts";
import type { SourceEvent, SourceSettings } from "../source/context.ts";
import { OTHER_GUEST, otherGuest } from "../source/refusal.ts";
import { TIME, WORD } from "../source/shared.ts";
import { SourceCrew } from "../threads/source-crew.ts";
import type { MigrationResult, Route, Stamped } from "../threads/tasks.ts";
import { ThreadError } from "../threads/thread.ts";
import type { TlsBridge } from "../threads/tls-bridge.ts";
import { formatDuration } from "../util/duration.ts";
import { log } from "../util/log.ts";
import { formatCount } from "../util/units.ts";
import { Retries } from "../util/retries.ts";
import { EXIT } from "../util/errors.ts";
import { INTERRUPTS_MAX } from "./interrupts.ts";
import { noteResumed, settle } from "./journal.ts";
import { PrecopyRecord } from "./precopy-record.ts";
import { takeOrders } from "./orders.ts";
import { sourceSettings } from "./source-flags.ts";
import { costText, placeAfter, sayWaiting } from "./source-job.ts";
import type { SourceEnd, SourceJob } from "./source-job.ts";
import { brokenBy, failureOf, sourceObservations, sourceReport } from "./source-report.ts";
import type { SourceMoment } from "./source-report.ts";
import { deepestCause } from "./tls-failure.ts";
import { Timeline } from "./timeline.ts";
import { MovementWatch } from "./watch-movement.ts";

export class SourceRun {
  readonly #job: SourceJob;
  readonly #timeline: Timeline<SourceMoment>;
  readonly #precopy: PrecopyRecord;
  #crew: SourceCrew | undefined;
  /** Of a link that broke after the switchover. */
  #retries: Retries | undefined;
  #bridge: TlsBridge | undefined;
  #recoveries = 0;
  readonly #watch: MovementWatch;

  constructor(job: SourceJob) {
    this.#job = job;
    this.#watch = new MovementWatch(job.output.page);
    this.#timeline = new Timeline(job.startNs);
    this.#precopy = new PrecopyRecord(job.output.events);
  }

  /** Sends the guest. Resolves also when the migration failed; the end says so. */
  async run(): Promise<SourceEnd> {
    const { guest, identity, peerText, workingSet, options, output, interrupts } = this.#job;
    const { replay = new Uint32Array(), watch = false } = this.#job;
    const { waiting = () => sayWaiting(peerText, options) } = this.#job;
    const crew = new SourceCrew({
      guest,
      identity,
      workingSet,
      replay,
      moved: this.#watch.shared,
      watch,
      peer: `the destination at ${peerText}`,
      waiting,
      connected: () => this.#connected(),
      event: (event) => this.#take(event),
    });
    this.#crew = crew;
    this.#watch.start(() => sourceResidency(crew.counts));
    const endOrders = takeOrders(interrupts, options.json, {
      switchover: () => crew.switchover(),
      recover: () => this.#retries?.now(),
    });
    const progress = output.startProgress(() => {
      return sourceProgress(crew.counts, this.#timeline.elapsedMs, this.#job.resume);
    });
    try {
      // Until it is known where to send there is nothing to lose: an interrupt ends the program.
      const { route, preempt, preemptFirst = false, bridge } = await this.#job.destination;
      this.#bridge = bridge;
      interrupts.onInterrupt((count) => this.#interrupt(count));
      const settings = { ...sourceSettings(options), preempt, preemptFirst };
      const result = await this.#migrate(crew, route, settings);
      progress.stop();
      this.#watch.stop();
      this.#settle(result);
      const end = await this.#finish(crew, result);
      // What is known of it by now may have another exit code.
      if (end.failure !== undefined && !this.#goesOnHere(end.place)) {
        interrupts.settleFailure(end.failure);
      }
      return end;
    } catch (error) {
      if (error instanceof Error) interrupts.settleFailure(error);
      throw error;
    } finally {
      progress.stop();
      this.#watch.stop();
      endOrders();
      crew.end();
      await this.#bridge?.close();
    }
  }

  /**
   * It is decided how this ends: before anything else is waited for it is noted in the journal, and no
   * signal changes it any more. Else one that comes now would leave an entry of a guest that never left.
   */
  #settle(result: MigrationResult): void {
    const { record, output, interrupts } = this.#job;
    const place = placeAfter(result);
    if (result.ok || place === "source") settle(record, output);
    if (result.ok) interrupts.settle(EXIT.ok);
    // It may be interrupted.
    else if (this.#goesOnHere(place)) interrupts.exitOnInterrupt();
    else interrupts.settleFailure(new ThreadError(result.error));
  }

  /** A guest that lives here does so again; one in files is done with. */
  #goesOnHere(place: SourceEnd["place"]): boolean {
    return this.#job.guest.kind === "stress" && place === "source";
  }

  /** Migrates, and goes on over further connections where the link breaks in the middle. */
  async #migrate(
    crew: SourceCrew,
    route: Route,
    settings: SourceSettings,
  ): Promise<MigrationResult> {
    const { options, output, resume = false, noted = false, record } = this.#job;
    const first = await (resume
      ? crew.resume(route, settings)
      : crew.run(route, settings, noted ? null : (record ?? null)));
    if (first.ok || !first.paused || route.kind !== "connect") return first;
    if (options.recoverTimeout === 0 || isForAnother(first)) return first;
    // One that is resumed had its patience.
    if (this.#isNowhere) return first;
    this.#tellPaused(crew, first);
    const retries = (this.#retries = new Retries(options.recoverTimeout));
    // What made the link over TLS and is no more makes no other.
    void this.#bridge?.lost.then(() => retries.end());
    // A try waits for nobody: the pauses between them do.
    const once: Route = { ...route, patienceMs: 0 };
    const strangers = new LimitedWarnings((message) => output.warn("OTHER_GUEST", message));
    let result: MigrationResult = first;
    while (!result.ok && result.paused && (await retries.next())) {
      const next = await crew.resume(once, { ...settings, channelsAsked: 0 });
      if (next.ok) this.#recoveries++;
      else if (next.paused) this.#notePhase(crew, "paused");
      // The one for this guest may still come.
      if (isForAnother(next)) strangers.say(`The recovery failed: ${otherGuest().message}`);
      // A try that came to nobody does not say where the guest is.
      const cameToNobody = !next.ok && next.paused && next.error.code === "NOT_RESUMED";
      if (!cameToNobody) result = next;
    }
    return result;
  }

  /** Whether the rest of a guest is to be sent, and nobody was there yet to take it. */
  get #isNowhere(): boolean {
    return this.#job.resume === true && this.#timeline.at("connected") === undefined;
  }

  #tellPaused(crew: SourceCrew, failure: Extract<MigrationResult, { ok: false }>): void {
    const { guest, peerText, options, output } = this.#job;
    this.#notePhase(crew, "paused");
    // Of one that is resumed it is not known before the destination has said it.
    const isKnown = this.#job.resume !== true || this.#timeline.at("postcopy") !== undefined;
    const owed = formatCount(Atomics.load(crew.shared.control, WORD.owed));
    const rest = isKnown ? ` with ${owed} pages still to send` : "";
    const isOurs =
      Atomics.load(crew.shared.control, WORD.peerFeatures) > 0 ||
      openSourceGuest(guest).receiver !== undefined;
    const patience = formatDuration(options.recoverTimeout);
    const hint = isOurs ? "" : `; a QEMU there has to be told: migrate_recover ${peerText}`;
    output.warn(
      "PAUSED",
      `The link to ${peerText} broke (${brokenBy(crew, failure.error)})${rest}; trying again for ` +
        `${patience}${hint}`,
    );
  }

  #notePhase(crew: SourceCrew, phase: "paused"): void {
    crew.shared.counters.set(SOURCE.phase, SOURCE_PHASES.indexOf(phase));
    this.#job.output.events.emit({ event: "phase", phase });
  }

  /** The guest runs at the destination: who knows it better than the stream says so first. */
  noteRunning(atNs: number): void {
    if (this.#timeline.at("running") !== undefined) return;
    this.#timeline.note("running", atNs);
    const sinceStartMs = this.#timeline.ms("start", "running") ?? 0;
    this.#job.output.events.emit({ event: "running", sinceStartMs, downtime: null });
  }

  /** Decides that the guest stays here, if that is still open. */
  keepsGuest(): boolean {
    return this.#crew === undefined || this.#crew.cancel();
  }

  #connected(): void {
    const { guest, guestText, peerText, output } = this.#job;
    this.#timeline.note("connected");
    output.events.emit({ event: "connected", peer: peerText });
    const blocks = sourceBlocks(guest).map(({ name, length, pageSize }) => {
      return { name, bytes: length, pageSize };
    });
    output.events.emit({ event: "guest", guest: guestText, blocks });
  }

  #take(event: Stamped<SourceEvent>): void {
    const { output } = this.#job;
    switch (event.kind) {
      case "phase":
        this.#noteResumed(event.phase);
        this.#timeline.note(event.phase, event.atNs);
        output.events.emit({ event: "phase", phase: event.phase });
        break;
      case "round":
        this.#precopy.addRound(event.result);
        break;
      case "switchover": {
        const kind = event.action === "complete" ? "precopy" : "postcopy";
        this.#precopy.end({ reason: event.reason, dirtyPages: event.dirtyPages, kind });
        break;
      }
      case "channels": {
        const { urgentChannel, pushChannels } = event;
        output.events.emit({ event: "channels", urgentChannel, pushChannels });
        break;
      }
      case "warning":
        output.warn("SOURCE_WARNING", event.message);
        break;
    }
  }

  /** Of a resumed send: not before the peer has shown that it is the one that waits for the rest. */
  #noteResumed(phase: SourcePhase): void {
    const { resume = false, noted = false, record, output } = this.#job;
    if (resume && !noted && phase === "postcopy") noteResumed(record, output);
  }

  /** Before the point of no return the guest stays; after it, the operator must insist. */
  #interrupt(count: number): boolean | "abandoned" {
    const crew = this.#crew;
    if (crew === undefined || count > INTERRUPTS_MAX) this.#job.interrupts.exitNow();
    if (crew.cancel()) return true;
    if (this.#isNowhere) {
      // What the destination has stays there, and all of it is in files here.
      crew.stop();
      return true;
    }
    if (count > 1) {
      crew.stop();
      this.#retries?.end();
      return "abandoned";
    }
    const owed = Atomics.load(crew.shared.control, WORD.owed);
    log.warn(`${costText(this.#job, owed)}. Interrupt once more to give it up.`);
    return false;
  }

  async #finish(crew: SourceCrew, result: MigrationResult): Promise<SourceEnd> {
    const { times } = crew.shared;
    const moments: [SourceMoment, number][] = [
      ["stopped", times[TIME.stopped] ?? 0],
      ["running", this.#runningNs(crew)],
    ];
    for (const [moment, atNs] of moments) if (atNs > 0) this.#timeline.note(moment, atNs);
    if (result.ok) this.#timeline.note("drained");
    if (result.ok && result.outcome.completedIn === "precopy") this.#timeline.note("running");
    const failure = result.ok ? undefined : await failureOf(crew, result.error, this.#bridge);
    const cancelled = this.#job.interrupts.interrupted;
    const phase: SourcePhase | undefined = result.ok
      ? undefined
      : cancelled
        ? "cancelled"
        : "failed";
    const place = placeAfter(result);
    const report = sourceReport({
      ...{ job: this.#job, crew, timeline: this.#timeline, failure, place },
      ...{ precopy: this.#precopy, recoveries: this.#recoveries },
    });
    if (phase !== undefined) crew.shared.counters.set(SOURCE.phase, SOURCE_PHASES.indexOf(phase));
    const requested = crew.shared.requested();
    const observed = sourceObservations(this.#timeline, this.#watch.movement, crew);
    return { report, observed, requested, failure, place };
  }

  /** When the guest ran: our own destination says so, of a QEMU we know when it was about to. */
  #runningNs(crew: SourceCrew): number {
    const running = crew.shared.times[TIME.running] ?? 0;
    return running > 0 ? running : (crew.shared.times[TIME.loaded] ?? 0);
  }
}

/** Whether whoever was there waits for another guest than this one. */
function isForAnother(result: MigrationResult): boolean {
  return !result.ok && deepestCause(result.error).code === OTHER_GUEST;
}
