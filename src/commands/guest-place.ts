/** Where a guest is that is received, for people: what it costs to end, and where a failure leaves it. */
import { formatPeer } from "../channel/address.ts";
import { FATE } from "../dest/refusal.ts";
import { WORD } from "../dest/shared.ts";
import { isResumed } from "../guests/registry.ts";
import { forgetArrival, holdsArrival } from "../guests/snapshot/directory.ts";
import type { RamBlock } from "../ram/block.ts";
import type { DestCrew } from "../threads/dest-crew.ts";
import { log } from "../util/log.ts";
import { formatCount } from "../util/units.ts";
import type { ArrivalNotes } from "./arrival-notes.ts";
import type { DestJob } from "./dest-job.ts";

export interface GuestPlaceOptions {
  job: Pick<DestJob, "guest" | "peer" | "output">;
  crew: DestCrew;
  /** What is known of it. */
  notes: Pick<ArrivalNotes, "timeline" | "blocks">;
}

export class GuestPlace {
  readonly #options: GuestPlaceOptions;

  constructor(options: GuestPlaceOptions) {
    this.#options = options;
  }

  get #blocks(): readonly RamBlock[] {
    return this.#options.notes.blocks;
  }

  /** Where the guest is that did not start here: what the source knows of that makes a difference. */
  refusedText(): string {
    const { control } = this.#options.crew.shared;
    const told = Atomics.load(control, WORD.fate) === FATE.told;
    // What is sent is done with, for a source that cannot be told.
    if (this.#blocks.length > 0 && Atomics.load(control, WORD.returnPathOpen) === 0) {
      return (
        "The guest did not start here: it is the source's, which opened no return path to be told " +
        "so. If a QEMU shows postmigrate there, cont lets the guest go on"
      );
    }
    if (Atomics.load(control, WORD.packageWhole) === 0 || told) {
      return "The guest did not start here: it is the source's to go on with";
    }
    return (
      "The guest did not start here, and the source could not be told: it holds the guest, " +
      "stopped, and whole"
    );
  }

  /** Says where a failure leaves the guest. */
  say(): void {
    const { guest, output } = this.#options.job;
    if (this.#options.notes.timeline.at("connected") === undefined && !isResumed(guest)) return;
    if (this.#options.crew.refuse()) {
      if (guest.kind === "snapshot" && !isResumed(guest)) forgetArrival(guest.directory);
      log.info(this.refusedText());
      return;
    }
    const left = Atomics.load(this.#options.crew.shared.control, WORD.missing);
    const rest = this.restText();
    if (rest !== undefined) {
      output.warn("GUEST_AT_SOURCE", `${this.#partText(left)}${rest}`);
      return;
    }
    if (guest.kind === "snapshot" && this.#options.notes.timeline.at("postcopy") !== undefined) {
      const message =
        "The snapshot is whole, but its name may not outlast a loss of power: end its source only " +
        `when this has succeeded: sync ${guest.directory}`;
      output.warn("NOT_DURABLE", message);
      return;
    }
    if (guest.kind === "snapshot") {
      const message =
        "All of the guest came, but the snapshot could not be named: the source holds the guest, " +
        "whole. If a QEMU shows postmigrate there, cont lets it go on";
      output.warn("GUEST_STANDS", message);
      return;
    }
    const what = "The guest ran here and ends with this process";
    output.warn("GUEST_LOST", `${what}: ${formatCount(left)} of its pages never came`);
  }

  /** What is here of a guest that was taken over to be kept, of which `missing` pages are not. */
  #partText(missing: number): string {
    if (missing > 0) {
      const count = formatCount(missing);
      return `The guest was taken over and is no whole snapshot: ${count} of its pages never came`;
    }
    // Nothing is missing of a guest that was not counted yet, either.
    if (this.#blocks.length === 0) return "What is there of the guest could not be looked through";
    return this.#options.notes.timeline.at("drained") === undefined
      ? "All of the guest came, but it was not made a snapshot"
      : "All of the guest came, but it could not be made durable";
  }

  /** How the rest of a guest is had that was taken over to be kept; undefined if none was. */
  restText(): string | undefined {
    const { guest, peer } = this.#options.job;
    if (guest.kind !== "snapshot" || !holdsArrival(guest.directory)) return undefined;
    const listens = peer.kind === "tcp" || peer.kind === "unix";
    const place = listens ? formatPeer(peer) : "tcp:HOST:PORT";
    return (
      ". Its source waits and has all of it: do not end it, nor cancel its migration. The rest is " +
      "taken, also into a copy of the directory, by: postcopy dest --guest " +
      `snapshot:${guest.directory} --listen ${place} --resume; a QEMU is then told, at its monitor: ` +
      "migrate -r tcp:HOST:PORT"
    );
  }

  /** What it costs to end while the guest is here. */
  costText(): string {
    const rest = this.restText();
    if (rest !== undefined && this.#blocks.length === 0) {
      return "What is there of the guest is still looked through: ending now leaves it as it is";
    }
    const missing = formatCount(Atomics.load(this.#options.crew.shared.control, WORD.missing));
    const then = rest === undefined ? "loses it" : "leaves them to its source";
    return `The guest is here already and ${missing} of its pages are not: ending now ${then}`;
  }
}
