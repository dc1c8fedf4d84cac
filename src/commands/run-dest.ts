/** Receives one guest: starts the crew, shows what happens, obeys the operator, makes the report. */
import type { GuestMemory } from "../dest/context.ts";
import { StoppedError } from "../channel/channel.ts";
import { guestRuns } from "../dest/refusal.ts";
import { WORD } from "../dest/shared.ts";
import { isResumed } from "../guests/registry.ts";
import type { RamBlock } from "../ram/block.ts";
import type { Observations } from "../report/observations.ts";
import type { DestReport } from "../report/report.ts";
import { destProgress, destResidency } from "../report/summary.ts";
import { DestCrew } from "../threads/dest-crew.ts";
import type { StressCrew } from "../threads/stress-crew.ts";
import { ThreadError } from "../threads/thread.ts";
import { errorChain, errorRecord, EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatCount } from "../util/units.ts";
import { ArrivalNotes } from "./arrival-notes.ts";
import type { AuditFigures } from "./audit-guest.ts";
import { sayListening } from "./dest-job.ts";
import type { DestJob } from "./dest-job.ts";
import { destObservations, destReport } from "./dest-report.ts";
import { GuestPlace } from "./guest-place.ts";
import { INTERRUPTS_MAX } from "./interrupts.ts";
import { closeArrival, openArrival } from "./peers.ts";
import type { OpenedArrival } from "./peers.ts";
import { withTlsFailure } from "./tls-failure.ts";
import { MovementWatch } from "./watch-movement.ts";

export class DestRun {
  readonly #job: DestJob;
  readonly #notes: ArrivalNotes;
  readonly #watch: MovementWatch;
  readonly #crew: DestCrew;
  readonly #opened: OpenedArrival;
  readonly #place: GuestPlace;
  #completedIn: DestReport["completedIn"] = null;
  /** What ended the run from outside of its threads. */
  #endedBy: Error | undefined;
  #isOver = false;

  private constructor(job: DestJob, opened: OpenedArrival) {
    this.#job = job;
    this.#opened = opened;
    const notes = (this.#notes = new ArrivalNotes(job, opened));
    this.#watch = new MovementWatch(job.output.page);
    this.#crew = new DestCrew({
      guest: job.guest,
      arrival: opened.arrival,
      lockMemory: job.lockMemory,
      recoverTimeoutMs: job.recoverTimeoutMs,
      linkTimeoutMs: job.linkTimeoutMs,
      pushChannels: job.channels - 1,
      moved: this.#watch.shared,
      connected: (peer) => notes.connected(peer),
      event: (event) => notes.take(event),
    });
    this.#place = new GuestPlace({ job, crew: this.#crew, notes });
  }

  /** Opens the listening socket and says where. */
  static async open(job: DestJob): Promise<DestRun> {
    const { peer, security, output } = job;
    const warn = (message: string): void => output.warn("DEST_WARNING", message);
    const opened = await openArrival(peer, security, warn);
    const run = new DestRun(job, opened);
    sayListening(opened, output);
    return run;
  }

  /** The same where the socket is open, and this was said. */
  static over(job: DestJob, opened: OpenedArrival): DestRun {
    return new DestRun(job, opened);
  }

  /**
   * Receives the guest. Resolves when every page is in place. Where it fails `giveUp` decides, while the
   * source still hears, what becomes of who needs the pages, and returns whether that is no more.
   * @throws the failure of the migration.
   */
  async receive(giveUp: (why: Error) => boolean = () => this.#endsWithProcess): Promise<void> {
    const { guest, output, interrupts } = this.#job;
    const crew = this.#crew;
    const { timeline } = this.#notes;
    interrupts.onInterrupt((count) => this.#interrupt(count));
    void this.#opened.bridge?.lost.then((why) => this.#loseTls(why));
    let connectedMs = 0;
    this.#watch.start(() => destResidency(crew.counts));
    const progress = output.startProgress(() => {
      // A guest that is resumed is at work before its source has come back.
      const nobody = timeline.at("connected") === undefined && !isResumed(guest);
      if (nobody) connectedMs = timeline.elapsedMs;
      const sinceMs = timeline.elapsedMs - connectedMs;
      return destProgress(crew.counts, sinceMs, isResumed(guest));
    });
    try {
      this.#completedIn = (await crew.run()).completedIn;
      // The source has heard that it is no more.
      if (this.#endedBy !== undefined && this.#endsWithProcess) throw this.#endedBy;
      this.#job.whole?.();
      // A guest that runs here goes on, and may be interrupted.
      if (guest.kind === "stress") interrupts.exitOnInterrupt();
      else interrupts.settle(EXIT.ok);
      const sinceStartMs = timeline.ms("connected", "drained") ?? 0;
      output.events.emit({ event: "drained", sinceStartMs });
    } catch (error) {
      const why = await this.#failure(error);
      interrupts.settleFailure(why);
      if (giveUp(why)) crew.tellGone();
      throw why;
    } finally {
      this.#isOver = true;
      progress.stop();
      this.#watch.stop();
      crew.end();
      await closeArrival(this.#opened);
    }
  }

  /**
   * Whether the guest ran here, sent by one of ours, and ends with this process. One that is kept does
   * not: another process takes the rest.
   */
  get #endsWithProcess(): boolean {
    if (this.#job.guest.kind !== "stress" || this.memory?.sourceIsOurs !== true) return false;
    return guestRuns(this.#crew.shared.control);
  }

  /** What ended the run, as far as that is known here. */
  async #failure(error: unknown): Promise<Error> {
    if (this.#endedBy !== undefined) return this.#endedBy;
    if (!(error instanceof Error)) return new Error(String(error));
    if (!(error instanceof ThreadError)) return error;
    return await withTlsFailure(errorRecord(error), this.#opened.bridge);
  }

  /** The stress guest that arrived, if it is one. */
  get stress(): StressCrew | undefined {
    return this.#notes.stress;
  }

  /** Its RAM blocks. */
  get blocks(): readonly RamBlock[] {
    return this.#notes.blocks;
  }

  /** The memory of the guest, once it is known. */
  get memory(): GuestMemory | undefined {
    return this.#crew.memory;
  }

  /** Ends `receive`, which then throws `why`, unless it is over. */
  giveUp(why: Error): void {
    if (this.#isOver) return;
    this.#endedBy ??= why;
    // Before a thread closes anything of the link: then the source may not read on.
    if (this.#endsWithProcess) this.#crew.tellGone();
    this.#crew.stop();
  }

  /**
   * No source can come any more, and what links there were are broken. A wait for one that nothing
   * else ends is over, also for the rest of a kept guest, which another process can take. A live
   * guest that runs here is not ended: it goes on with the pages that it has.
   */
  #loseTls(why: Error): void {
    if (this.#isOver) return;
    const { control } = this.#crew.shared;
    const missing = Atomics.load(control, WORD.missing);
    const lacksPages = guestRuns(control) && missing > 0;
    // A VMM's source is awaited again where one was lost before LISTEN.
    const mayCome = this.blocks.length === 0 || this.#job.guest.kind === "uffd";
    const isAwaited = mayCome && this.#crew.refuse();
    if (isAwaited || (lacksPages && this.#place.restText() !== undefined)) {
      this.giveUp(why);
    } else if (lacksPages) {
      const message =
        `${errorChain(why)}: no source can come any more. The guest goes on with what is here; ` +
        `${formatCount(missing)} of its pages will never come`;
      this.#job.output.warn("TLS_LOST", message);
    }
  }

  /**
   * Until the guest runs here giving up costs nothing; afterwards it costs the guest. Both ways end
   * soon, with a report: who cannot wait for it presses once more.
   */
  #interrupt(count: number): boolean | "abandoned" {
    // A VMM that has handed its memory over depends on us wherever the source's guest is.
    if (this.#job.guest.kind === "uffd") return this.#interruptFilling(count);
    const refused = this.#crew.refuse();
    if (count > INTERRUPTS_MAX) {
      const lost = `Given up${this.#place.restText() ?? ": the guest is lost"}`;
      log.warn(refused ? this.#place.refusedText() : lost);
      this.#job.interrupts.exitNow();
    }
    if (!refused && count === 1) {
      log.warn(`${this.#place.costText()}. Interrupt once more to give it up.`);
      return false;
    }
    this.giveUp(new StoppedError());
    return refused || "abandoned";
  }

  #interruptFilling(count: number): false | "abandoned" {
    if (count === 1) {
      log.warn("The VMM waits for pages that are not there. Interrupt once more to give it up.");
      return false;
    }
    this.giveUp(new StoppedError());
    return "abandoned";
  }

  /** Says where a failure leaves the guest. */
  sayWhere(): void {
    this.#place.say();
  }

  /** What the page of a report shows beside it, after `receive`. */
  get observed(): Observations {
    // A guest that is kept runs nowhere.
    const runs = this.#job.guest.kind === "stress";
    return destObservations(this.#notes.timeline, this.#watch.movement, this.#crew, runs);
  }

  /** The report, after `receive`; `failure` if that threw. */
  report(audit: AuditFigures | null, failure: Error | undefined): DestReport {
    return destReport({
      ...{ job: this.#job, crew: this.#crew, notes: this.#notes },
      ...{ completedIn: this.#completedIn, audit, failure },
    });
  }
}
