/** `dest --guest qemu:SOCKET`: a QEMU that waits for a guest receives it, by itself. */
import { formatPeer, resolvePeer } from "../channel/address.ts";
import type { Peer } from "../channel/address.ts";
import {
  followIncoming,
  listenIncoming,
  prepareIncoming,
  ReceiveError,
} from "../guests/qemu/dest-driver.ts";
import { eventTimeNs, qemuFigures } from "../guests/qemu/migration.ts";
import { qemuTls } from "../guests/qemu/tls.ts";
import { QmpClient } from "../qmp/client.ts";
import type { MigrateReply } from "../qmp/messages.ts";
import { DEST_COUNTERS } from "../report/counters.ts";
import type { DestPhase } from "../report/counters.ts";
import type { Observations } from "../report/observations.ts";
import type { DestReport } from "../report/report.ts";
import { REPORT_VERSION } from "../report/report.ts";
import { destCounts, destProgress } from "../report/summary.ts";
import { errorChain, EXIT, UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { VERSION } from "../util/version.ts";
import type { Output } from "./common.ts";
import { INTERRUPTS_MAX } from "./interrupts.ts";
import type { Interrupts } from "./interrupts.ts";
import { peakResidentBytes } from "./process-memory.ts";
import { Timeline } from "./timeline.ts";

/** What receives, where, and how. */
export interface DriveDestJob {
  socket: string;
  peer: Peer;
  options: { insecure: boolean; tls: string | undefined; preempt: boolean };
  output: Output;
  interrupts: Interrupts;
}

type Moment = "connected" | "precopy" | "device" | "postcopy" | "running" | "drained";

/** Phases of this program for QEMU's statuses. */
const PHASES: Readonly<Record<string, DestPhase>> = {
  active: "precopy",
  "postcopy-device": "device",
  "postcopy-active": "postcopy",
  "postcopy-paused": "paused",
  completed: "completed",
};

/** Receives a guest in a QEMU. Returns the exit code. @throws ReceiveError with QEMU's own words. */
export async function driveDest(job: DriveDestJob): Promise<number> {
  const { peer, options } = job;
  if (peer.kind !== "tcp" && peer.kind !== "unix") {
    throw new UsageError("BAD_PEER", `A QEMU cannot listen on ${formatPeer(peer)} from here`, {
      hint: "use tcp:HOST:PORT or unix:PATH, where it listens by itself",
    });
  }
  await resolvePeer(peer, options.insecure || options.tls !== undefined);
  const qmp = await QmpClient.connect(job.socket, { outOfBand: true });
  try {
    return await new DrivenDest(job, qmp).run();
  } finally {
    qmp.close();
  }
}

class DrivenDest {
  readonly #job: DriveDestJob;
  readonly #qmp: QmpClient;
  readonly #timeline = new Timeline<Moment>();
  /** All zero: only QEMU counts. */
  readonly #counters = DEST_COUNTERS.create();
  #phase: DestPhase = "waiting";
  #address: string;

  constructor(job: DriveDestJob, qmp: QmpClient) {
    this.#job = job;
    this.#qmp = qmp;
    this.#address = formatPeer(job.peer);
    qmp.onEvent((event) => {
      if (event.name === "RESUME") this.#noteRunning(eventTimeNs(event));
    });
  }

  async run(): Promise<number> {
    const { options, output, interrupts } = this.#job;
    const tls = qemuTls(options.tls, "server");
    const changed = await prepareIncoming(this.#qmp, { preempt: options.preempt, tls });
    try {
      this.#address = await listenIncoming(this.#qmp, this.#address);
    } catch (error) {
      await changed.putBack();
      throw error;
    }
    log.info(`QEMU waits for a source on ${this.#address}`);
    output.events.emit({ event: "listening", peer: this.#address });
    const left = Promise.withResolvers<never>();
    interrupts.onInterrupt((count) => {
      if (count > INTERRUPTS_MAX) interrupts.exitNow();
      left.reject(new ReceiveError("STOPPED", "QEMU was left to itself"));
      return "abandoned";
    });
    const progress = output.startProgress(() => {
      const sample = destProgress(this.#counters, this.#timeline.elapsedMs);
      return { ...sample, phase: this.#phase, remainingPages: null };
    });
    try {
      const end = followIncoming(this.#qmp, this.#address, (status) => this.#takeStatus(status));
      const reply = await Promise.race([end, left.promise]);
      interrupts.settle(EXIT.ok);
      this.#timeline.note("drained");
      const sinceStartMs = this.#timeline.ms("connected", "drained") ?? 0;
      output.events.emit({ event: "drained", sinceStartMs });
      progress.stop();
      output.finish(this.#report(reply, undefined), this.#observed);
      return EXIT.ok;
    } catch (error) {
      progress.stop();
      if (!(error instanceof Error)) throw error;
      interrupts.settleFailure(error);
      output.finish(this.#report({}, error), this.#observed);
      if (!interrupts.abandoned) throw error;
      log.warn("QEMU is left to itself: it goes on waiting, or receiving. quit ends it.");
      return interrupts.exitCode;
    } finally {
      // One that goes on does so as it was told to.
      if (!interrupts.abandoned) await changed.putBack();
    }
  }

  /** The data pass elsewhere: nothing of them is seen here. */
  get #observed(): Observations {
    const { startNs: zeroNs } = this.#timeline;
    return { zeroNs, moments: [], movement: undefined, latencies: undefined };
  }

  #noteRunning(atNs: number): void {
    this.#timeline.note("running", atNs);
    const sinceStartMs = this.#timeline.ms("connected", "running") ?? 0;
    this.#job.output.events.emit({ event: "running", sinceStartMs, downtime: null });
  }

  #takeStatus(status: string): void {
    const phase = PHASES[status];
    if (phase === undefined || phase === this.#phase) return;
    this.#phase = phase;
    const { events } = this.#job.output;
    if (this.#timeline.at("connected") === undefined) {
      this.#timeline.note("connected");
      events.emit({ event: "connected", peer: "the source" });
      const urgentChannel = this.#job.options.preempt;
      events.emit({ event: "channels", urgentChannel, pushChannels: 1 });
    }
    if (phase === "precopy" || phase === "device" || phase === "postcopy") {
      this.#timeline.note(phase);
    }
    events.emit({ event: "phase", phase });
    if (phase !== "paused") return;
    this.#job.output.warn(
      "PAUSED",
      `The link broke while pages were missing; QEMU waits for the source on ${this.#address} again`,
    );
  }

  #report(reply: MigrateReply, failure: Error | undefined): DestReport {
    const { socket, options, interrupts } = this.#job;
    const timeline = this.#timeline;
    const code = failure !== undefined && "code" in failure ? String(failure.code) : "QEMU_FAILED";
    const counts = destCounts(this.#counters);
    return {
      role: "dest",
      version: REPORT_VERSION,
      program: VERSION,
      startedAt: timeline.startedAt,
      guest: `a guest in QEMU at ${socket}`,
      peer: this.#address,
      outcome: interrupts.outcome(failure),
      error: failure === undefined ? null : { code, message: errorChain(failure) },
      downtime: null,
      times: {
        setup: null,
        precopy: timeline.ms("precopy", "running"),
        device: null,
        postcopy: timeline.ms("running", "drained"),
        toRunning: timeline.ms("connected", "running"),
        toDrained: timeline.ms("connected", "drained"),
        total: timeline.elapsedMs,
      },
      rates: { precopy: null, postcopy: null },
      memory: { guestBytes: 0, peakRssBytes: peakResidentBytes() },
      qemu: qemuFigures(this.#qmp.version, reply),
      urgentChannel: options.preempt,
      pushChannels: 1,
      favour: null,
      ...counts,
      faults: { ...counts.faults, latencyNs: null },
      phase: this.#phase,
      multifd: null,
      // It is asked now and then, and a short postcopy may lie between.
      completedIn: null,
      audit: null,
      snapshot: null,
    };
  }
}
