/** `source --guest qemu:SOCKET`: moves the guest of a running QEMU, by that QEMU itself. */
import { formatPeer, resolvePeer } from "../channel/address.ts";
import type { Peer } from "../channel/address.ts";
import { DriveError } from "../guests/qemu/drive-error.ts";
import { guestState, judge, keptByPeer } from "../guests/qemu/earlier-move.ts";
import { identifyQemu } from "../guests/qemu/identity.ts";
import { continueGuest, letRun } from "../guests/qemu/keep.ts";
import { QemuSourceDriver } from "../guests/qemu/source-driver.ts";
import type { DriveEvent } from "../guests/qemu/source-driver.ts";
import { eventTimeNs } from "../guests/qemu/migration.ts";
import { qemuTls } from "../guests/qemu/tls.ts";
import type { Journal } from "../journal/journal.ts";
import { writeRecord } from "../journal/record.ts";
import type { JournalRecord } from "../journal/record.ts";
import { QmpClient } from "../qmp/client.ts";
import type { QmpEvent } from "../qmp/client.ts";
import { statusSchema } from "../qmp/messages.ts";
import type { SourcePhase } from "../report/counters.ts";
import type { SourceReport } from "../report/report.ts";
import { formatDuration } from "../util/duration.ts";
import { errorChain, EXIT, UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { isAlive } from "../util/processes.ts";
import type { Output } from "./common.ts";
import {
  driveObservations,
  driveReport,
  driveSample,
  readMoved,
  residentShare,
} from "./drive-report.ts";
import type { DriveMoment } from "./drive-report.ts";
import { INTERRUPTS_MAX } from "./interrupts.ts";
import type { Interrupts } from "./interrupts.ts";
import { noteMoved, settle } from "./journal.ts";
import { PrecopyRecord } from "./precopy-record.ts";
import { sayWaiting } from "./source-job.ts";
import { takeOrders } from "./orders.ts";
import type { SourceOptions } from "./source-flags.ts";
import { Timeline } from "./timeline.ts";
import { MovementWatch } from "./watch-movement.ts";

/** What is moved, where, and how. */
export interface DriveJob {
  socket: string;
  peer: Peer;
  options: SourceOptions & { json: boolean; keep: boolean; again: boolean };
  journal: Journal | undefined;
  output: Output;
  interrupts: Interrupts;
}

/** Phases of this program for QEMU's statuses. */
const PHASES: Readonly<Record<string, SourcePhase>> = {
  active: "precopy",
  "pre-switchover": "device",
  device: "device",
  "postcopy-device": "device",
  "postcopy-active": "postcopy",
  "postcopy-paused": "paused",
  "postcopy-recover-setup": "recover",
  "postcopy-recover": "recover",
  completed: "completed",
};

/** Moves the guest. Returns the exit code. @throws DriveError with QEMU's own words. */
export async function driveSource(job: DriveJob): Promise<number> {
  const { peer, options } = job;
  if (peer.kind !== "tcp" && peer.kind !== "unix") {
    throw new UsageError("BAD_PEER", `A QEMU cannot be sent to ${formatPeer(peer)} from here`, {
      hint: "use tcp:HOST:PORT or unix:PATH, which it connects to by itself",
    });
  }
  await resolvePeer(peer, options.insecure || options.tls !== undefined);
  const qmp = await QmpClient.connect(job.socket);
  try {
    return await new DrivenSource(job, qmp).run();
  } finally {
    qmp.close();
  }
}

class DrivenSource {
  readonly #job: DriveJob;
  readonly #qmp: QmpClient;
  readonly #driver: QemuSourceDriver;
  readonly #timeline = new Timeline<DriveMoment>();
  readonly #precopy: PrecopyRecord;
  /** Its entry in the journal; undefined where none is kept. */
  #record: JournalRecord | undefined;
  #phase: SourcePhase = "setup";
  readonly #watch: MovementWatch;

  constructor(job: DriveJob, qmp: QmpClient) {
    const { options } = job;
    this.#watch = new MovementWatch(job.output.page, 1);
    this.#job = job;
    this.#qmp = qmp;
    this.#precopy = new PrecopyRecord(job.output.events);
    const settings = {
      policy: options.switchover,
      maxBandwidth: options.maxBandwidth ?? 0,
      maxPostcopyBandwidth: options.maxPostcopyBandwidth ?? 0,
      downtimeLimitMs: options.downtimeLimit,
      preempt: options.preempt,
      keep: options.keep,
      patienceMs: options.connectTimeout,
      recoverTimeoutMs: options.recoverTimeout,
      tls: qemuTls(options.tls, "client", options.tlsHostname),
    };
    this.#driver = new QemuSourceDriver(qmp, settings, (event) => this.#take(event));
    qmp.onEvent((event) => this.#hear(event));
  }

  async run(): Promise<number> {
    const { options, output, interrupts, peer } = this.#job;
    const driver = this.#driver;
    await this.#lookBack();
    await driver.prepare();
    interrupts.onInterrupt((count) => this.#interrupt(count));
    const endOrders = takeOrders(interrupts, options.json, {
      switchover: () => driver.switchover(),
      recover: () => driver.recover(),
    });
    const progress = output.startProgress(() => {
      return driveSample(driver, this.#phase, this.#timeline.elapsedMs);
    });
    this.#watch.start(
      () => residentShare(driver.reply),
      (counts) => readMoved(driver, counts),
    );
    let failure: Error | undefined;
    try {
      // QEMU may complete by itself at any time from here on.
      if (this.#record !== undefined) writeRecord(this.#record, "committing");
      await driver.migrate(formatPeer(peer));
      this.#timeline.note("drained");
      this.#noteCompletion();
      if (options.keep) await this.#keep();
      this.#noteMove();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      failure = await this.#withPlace(error);
    } finally {
      progress.stop();
      this.#watch.stop();
      endOrders();
    }
    if (failure === undefined) interrupts.settle(EXIT.ok);
    else interrupts.settleFailure(failure);
    // One that goes on sending goes on as it was told to.
    if (failure === undefined || !interrupts.abandoned) await driver.restoreSettings();
    output.finish(this.#report(failure), driveObservations(this.#timeline, this.#watch.movement));
    if (failure === undefined) return EXIT.ok;
    if (!interrupts.interrupted) throw failure;
    if (interrupts.abandoned) log.warn(errorChain(failure));
    else log.info(failure.message);
    return interrupts.exitCode;
  }

  /**
   * What an earlier migration left: the guest must be here and nowhere else.
   * @throws DriveError.
   */
  async #lookBack(): Promise<void> {
    const { peer, options, journal, output } = this.#job;
    const { keep } = options;
    const guest = journal && (await identifyQemu(this.#qmp));
    const entries = (guest && journal.entriesOf(guest)) ?? [];
    const earlier = entries.filter(({ entry }) => !isAlive(entry.sender));
    const verdict = judge(await guestState(this.#qmp), earlier.at(-1)?.entry, options);
    if (verdict instanceof DriveError) throw verdict;
    if (verdict === "continue") {
      await letRun(this.#qmp);
      output.warn("CONTINUED", "The guest, which an earlier --keep left standing, goes on here");
    }
    if (journal === undefined || guest === undefined) return;
    journal.forget(earlier);
    const to = { kind: "address", text: formatPeer(peer) } as const;
    this.#record = journal.record(guest, to, { keep });
  }

  /** All of it is at the peer; only a peer that keeps it without running it gives the guest back. */
  #noteMove(): void {
    const { options, output } = this.#job;
    if (options.keep || keptByPeer(this.#driver.reply)) settle(this.#record, output);
    else noteMoved(this.#record, output);
  }

  /** Lets the guest go on here, and waits until it does. */
  async #keep(): Promise<void> {
    await continueGuest(this.#qmp, this.#driver);
    this.#timeline.note("resumed");
    const stood = this.#timeline.ms("stopped", "resumed");
    if (stood !== null)
      log.info(`The guest goes on here; it stood still for ${formatDuration(stood)}`);
  }

  /** Adds to a failure where it leaves the guest. */
  async #withPlace(cause: Error): Promise<Error> {
    const { output } = this.#job;
    const status = await this.#qmp.execute("query-status", {}, statusSchema).catch(() => undefined);
    if (status?.running === true) settle(this.#record, output);
    const code = "code" in cause ? String(cause.code) : "QEMU_FAILED";
    const where =
      status === undefined
        ? "The QEMU is gone, or does not answer any more"
        : status.running
          ? "The migration failed; the guest goes on here"
          : `The guest stands still here, in state ${status.status}`;
    return new DriveError(code, where, { cause });
  }

  #take(event: DriveEvent): void {
    const { output, peer, options } = this.#job;
    switch (event.kind) {
      case "waiting":
        sayWaiting(formatPeer(peer), options);
        break;
      case "paused":
        output.warn(
          "PAUSED",
          `The link to ${formatPeer(peer)} broke after the switch; QEMU is told to try again for ` +
            formatDuration(options.recoverTimeout),
        );
        break;
      case "status":
        this.#takeStatus(event.status);
        break;
      case "round":
        this.#precopy.addRound(event.result);
        break;
      case "switchover": {
        const { reason, dirtyPages } = event;
        this.#precopy.end({ reason, dirtyPages, kind: "postcopy" });
        break;
      }
    }
  }

  #takeStatus(status: string): void {
    const phase = PHASES[status];
    if (phase === undefined || phase === this.#phase) return;
    this.#phase = phase;
    const { peer, options, output } = this.#job;
    if (phase === "precopy" || phase === "postcopy") this.#timeline.note(phase);
    if (phase === "precopy") {
      this.#timeline.note("connected");
      output.events.emit({ event: "connected", peer: formatPeer(peer) });
      const urgentChannel = options.preempt;
      output.events.emit({ event: "channels", urgentChannel, pushChannels: 1 });
    }
    if (phase !== "completed") output.events.emit({ event: "phase", phase });
  }

  #hear(event: QmpEvent): void {
    if (event.name === "STOP") this.#timeline.note("stopped", eventTimeNs(event));
    if (event.name === "RESUME" && this.#timeline.at("stopped") !== undefined) {
      this.#timeline.note("resumed", eventTimeNs(event));
    }
  }

  /** Until the switch a Ctrl-C keeps the guest here; afterwards there is nothing to be had by one. */
  #interrupt(count: number): boolean | "abandoned" {
    // Time for QEMU to cancel, and to get back what was changed at it: timeout(1) signals the program
    // and then its whole group, which is two of them at once.
    if (count > INTERRUPTS_MAX) this.#job.interrupts.exitNow();
    if (!this.#driver.switched) {
      void this.#driver.cancel().catch((error: unknown) => log.warn(String(error)));
      return true;
    }
    if (count > 1) {
      this.#driver.leave();
      return "abandoned";
    }
    log.warn(
      "The guest is at the destination already, and QEMU goes on sending it. Interrupt once more " +
        "to leave it to itself.",
    );
    return false;
  }

  /** Where little is dirty QEMU completes in precopy, also when it was told to switch. */
  #noteCompletion(): void {
    if (this.#driver.atSwitch !== undefined) return;
    const reason = "what was dirty fitted into the downtime limit";
    this.#precopy.end({ reason, dirtyPages: 0, kind: "precopy" });
  }

  #report(failure: Error | undefined): SourceReport {
    const { socket, peer, options, interrupts } = this.#job;
    return driveReport({
      ...{ driver: this.#driver, timeline: this.#timeline, options, socket, failure },
      ...{ peer: formatPeer(peer), version: this.#qmp.version, phase: this.#phase },
      precopy: this.#precopy,
      interrupts,
    });
  }
}
