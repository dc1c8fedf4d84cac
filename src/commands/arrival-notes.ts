/** What its threads say of a guest that arrives: told on as events, and noted for the report. */
import { formatPeer } from "../channel/address.ts";
import type { DestEvent } from "../dest/context.ts";
import { isResumed } from "../guests/registry.ts";
import type { ArrivalNews } from "../guests/registry.ts";
import type { KeptSnapshot } from "../guests/snapshot/dest-guest.ts";
import type { StopTime } from "../guests/stress/state.ts";
import type { RamBlock } from "../ram/block.ts";
import type { Downtime } from "../report/report.ts";
import { preloadStressThreads, StressCrew } from "../threads/stress-crew.ts";
import type { Stamped, WarningNews } from "../threads/tasks.ts";
import { bootId } from "../util/processes.ts";
import type { DestJob, DestMoment } from "./dest-job.ts";
import type { OpenedArrival } from "./peers.ts";
import { Timeline } from "./timeline.ts";

/** Threads loaded ahead for a stress guest, whose number of workers is known too late to wait. */
const STRESS_THREADS_AHEAD = 2;

export class ArrivalNotes {
  readonly timeline = new Timeline<DestMoment>();
  /** The stress guest that arrived, if it is one. */
  stress: StressCrew | undefined;
  /** Its memory. */
  blocks: readonly RamBlock[] = [];
  /** What became of a guest that is kept. */
  kept: KeptSnapshot | undefined;
  /** Who sends it. */
  source: string;
  readonly #job: DestJob;
  readonly #opened: OpenedArrival;
  readonly #preloaded: ReturnType<typeof preloadStressThreads>;
  /** When the guest executed its last instruction at the source. */
  #stopTime: StopTime | undefined;

  constructor(job: DestJob, opened: OpenedArrival) {
    this.#job = job;
    this.#opened = opened;
    this.source = opened.source ?? (isResumed(job.guest) ? "the source" : formatPeer(job.peer));
    this.#preloaded = job.guest.kind === "stress" ? preloadStressThreads(STRESS_THREADS_AHEAD) : [];
  }

  /** Somebody has connected, who may be the source. */
  connected(peer: string): void {
    // Whoever was there before got no further than the opening.
    this.timeline.forget("connected", "precopy");
    this.timeline.note("connected");
    this.#noteSource(peer);
  }

  /** Takes what a thread says. */
  take(event: Stamped<DestEvent> | ArrivalNews | WarningNews): void {
    const { output, guestText } = this.#job;
    switch (event.kind) {
      case "phase":
        if (event.phase !== "paused") this.timeline.note(event.phase, event.atNs);
        output.events.emit({ event: "phase", phase: event.phase });
        break;
      case "guest": {
        this.blocks = event.blocks;
        const blocks = event.blocks.map(({ name, length, pageSize }) => {
          return { name, bytes: length, pageSize };
        });
        output.events.emit({ event: "guest", guest: guestText, blocks });
        break;
      }
      case "channels": {
        const { urgentChannel, pushChannels } = event;
        output.events.emit({ event: "channels", urgentChannel, pushChannels });
        break;
      }
      case "returned":
        this.#noteSource(event.peer);
        break;
      case "running": {
        this.timeline.note("running", event.atNs);
        const sinceStartMs = this.timeline.ms("connected", "running") ?? 0;
        output.events.emit({ event: "running", sinceStartMs, downtime: this.downtime });
        break;
      }
      case "stress arrived":
        this.stress = new StressCrew(event.guest.setup, this.#preloaded);
        break;
      case "stress stopped":
        this.#stopTime = event.stopTime;
        break;
      case "snapshot kept":
        this.kept = event.snapshot;
        break;
      case "warning":
        output.warn("DEST_WARNING", event.message);
        break;
    }
  }

  /** How long the guest stood still, where that can be known. */
  get downtime(): Downtime | null {
    if (this.#stopTime === undefined || this.stress === undefined) return null;
    const { firstNs } = this.stress.control.runTimes();
    return oneClockDowntime(this.#stopTime, firstNs > 0 ? firstNs : this.timeline.at("running"));
  }

  #noteSource(peer: string): void {
    // Over TLS, and of a source in this process, the threads see only a private socket.
    this.source = this.#opened.source ?? this.#opened.bridge?.peer ?? peer;
    this.#job.output.events.emit({ event: "connected", peer: this.source });
  }
}

/** From the guest's last instruction at the source to its first here, where clocks compare. */
function oneClockDowntime(stopTime: StopTime, startedNs: number | undefined): Downtime | null {
  if (stopTime.bootId !== bootId()) return null;
  if (startedNs === undefined || stopTime.monotonicNs === 0) return null;
  const ms = Math.max(0, (startedNs - stopTime.monotonicNs) / 1e6);
  return { ms, method: "one-clock" };
}
