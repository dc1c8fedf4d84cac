/**
 * Drives a running QEMU through its monitor as an operator would by hand: capabilities and
 * parameters on, `migrate`, `migrate-start-postcopy` when the policy says so, and a look at it now
 * and then. The data go from that QEMU to its peer; nothing of them passes here.
 */
import type { RoundResult, SwitchoverPolicy } from "../../source/switchover.ts";
import { QmpError } from "../../qmp/client.ts";
import type { QmpClient } from "../../qmp/client.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { DriveError, hangingError, leftError, pausedError } from "./drive-error.ts";
import { LinkRecovery } from "./link-recovery.ts";
import { queryMigrate, refuseDeadlyMultifd } from "./migration.ts";
import { ChangedSettings } from "./settings.ts";
import { SwitchDecision } from "./switch-decision.ts";
import type { QemuTls } from "./tls.ts";

/** How often QEMU is asked how far it is when its events do not tell. */
const POLL_MS = 25;
/** The same where the last bytes of a round must be seen before it ends. */
const KEEP_POLL_MS = 4;
/** Precopy without a limit of ours: QEMU's own default would be 128 MiB a second. */
const UNLIMITED_BYTES_PER_SECOND = 2 ** 40;
/**
 * Precopy of the first tenth of a second. Until QEMU has measured that long it takes nothing for
 * little enough to look at what was written again: up to 10.0 a round that ends before is the last
 * one, and completes whatever is dirty. So a small guest is held back until QEMU knows its rate.
 */
const FIRST_BYTES_PER_SECOND = 1024 * 1024;
/**
 * Shortest downtime limit, where only we decide when to switch. At 0 QEMU 7.2 would complete at the
 * end of its first round, whatever is dirty by then.
 */
const LEAST_DOWNTIME_MS = 1;
/**
 * Switched off for the time of the migration: QEMU would stop before the switch until told to go on,
 * would wait for an acknowledgement of the peer that not every peer sends, or, under --keep, would
 * free the memory that the guest goes on with.
 */
const IN_THE_WAY = { "pause-before-switchover": false, "switchover-ack": false } as const;
const IN_THE_WAY_OF_KEEP = { ...IN_THE_WAY, "release-ram": false } as const;
/** What QEMU says when nobody is there (yet). */
const NOBODY_THERE = /refused|No such file|No route|timed out|unreachable/i;

/** What the operator may set. */
export interface DriveSettings {
  policy: SwitchoverPolicy;
  /** Bytes a second in precopy; 0: no limit. */
  maxBandwidth: number;
  /** Bytes a second of the background push; 0: no limit. */
  maxPostcopyBandwidth: number;
  downtimeLimitMs: number;
  preempt: boolean;
  /** The guest goes on here afterwards: it must be sent by postcopy, so that this can be judged. */
  keep: boolean;
  /** How long to wait for a peer that is not there yet. */
  patienceMs: number;
  /** How long to try again when the link breaks after the switch. */
  recoverTimeoutMs: number;
  /** Certificates, where it goes over TLS. */
  tls?: QemuTls | undefined;
}

/** What happens meanwhile. */
export type DriveEvent =
  | { kind: "status"; status: string }
  | { kind: "round"; result: RoundResult }
  | { kind: "switchover"; reason: string; dirtyPages: number }
  | { kind: "waiting" }
  /** The link broke after the switch; it is tried again. */
  | { kind: "paused" };

export class QemuSourceDriver {
  /** The last answer of query-migrate. */
  reply: MigrateReply = {};
  /** The answer in which the switch to postcopy was first seen: what precopy had sent until then. */
  atSwitch: MigrateReply | undefined;
  readonly #qmp: QmpClient;
  readonly #settings: DriveSettings;
  readonly #emit: (event: DriveEvent) => void;
  #changed: ChangedSettings | undefined;
  #switched = false;
  /** QEMU completes in precopy, and has stopped the guest for it; 7.2 does not tell. */
  #completing = false;
  #cancelled = false;
  #left = false;
  #held = true;
  readonly #decision: SwitchDecision;
  readonly #recovery: LinkRecovery;
  /** Patience is over, or the operator's. */
  readonly #noMoreTries = (): DriveError => (this.#left ? leftError() : pausedError());
  /** Resolved by an event that is worth a look. */
  #woken = Promise.withResolvers<void>();

  constructor(qmp: QmpClient, settings: DriveSettings, emit: (event: DriveEvent) => void) {
    this.#qmp = qmp;
    this.#settings = settings;
    this.#emit = emit;
    this.#decision = new SwitchDecision(settings, this.#downtimeLimitMs, (result) => {
      emit({ kind: "round", result });
    });
    this.#recovery = new LinkRecovery(qmp, settings.recoverTimeoutMs, () => {
      emit({ kind: "paused" });
    });
    qmp.onEvent(({ name, data }) => {
      // A short postcopy may be over between two looks; QEMU's events leave nothing out.
      if (name === "MIGRATION" && data["status"] === "postcopy-active") this.#noteSwitch();
      if (name === "MIGRATION" && data["status"] === "device") this.#completing = true;
      if (name === "MIGRATION" || name === "MIGRATION_PASS") this.#woken.resolve();
    });
  }

  /** The precopy round that is under way, from 1; 0 before the first. */
  get round(): number {
    return this.#decision.round;
  }

  /** How often the link broke after the switch and was made anew. */
  get recoveries(): number {
    return this.#recovery.count;
  }

  /** What QEMU may complete in by itself: only `auto` leaves that to it. */
  get #downtimeLimitMs(): number {
    const { policy, keep, downtimeLimitMs } = this.#settings;
    if (keep || policy.kind !== "auto") return LEAST_DOWNTIME_MS;
    return Math.max(LEAST_DOWNTIME_MS, Math.round(downtimeLimitMs));
  }

  get #precopyBytesPerSecond(): number {
    const { maxBandwidth } = this.#settings;
    return maxBandwidth === 0 ? UNLIMITED_BYTES_PER_SECOND : Math.round(maxBandwidth);
  }

  /**
   * Switches on what is needed, at a QEMU whose guest runs.
   * @throws DriveError, QmpError when this QEMU cannot migrate now.
   */
  async prepare(): Promise<void> {
    const { "blocked-reasons": blocked = [] } = await queryMigrate(this.#qmp);
    if (blocked.length > 0) {
      throw new DriveError("BLOCKED", `QEMU cannot migrate this guest: ${blocked.join("; ")}`);
    }
    await refuseDeadlyMultifd(this.#qmp);
    const { keep, preempt, maxPostcopyBandwidth, tls } = this.#settings;
    this.#changed = await ChangedSettings.change(this.#qmp, {
      needed: { "postcopy-ram": true, ...(preempt ? { "postcopy-preempt": true } : {}) },
      // Off as well where it was not asked for: the other end has to agree.
      wished: {
        ...{ events: true, "postcopy-preempt": preempt },
        ...(keep ? IN_THE_WAY_OF_KEEP : IN_THE_WAY),
      },
      parameters: {
        "max-bandwidth": Math.min(FIRST_BYTES_PER_SECOND, this.#precopyBytesPerSecond),
        "max-postcopy-bandwidth": Math.round(maxPostcopyBandwidth),
        "downtime-limit": this.#downtimeLimitMs,
      },
      tls,
    });
  }

  /** Puts back what `prepare` changed, where QEMU lets us. */
  async restoreSettings(): Promise<void> {
    await this.#changed?.putBack();
  }

  /** Has the next try to recover come at once. */
  recover(): void {
    this.#recovery.now();
  }

  /** Switches over as soon as QEMU can. */
  switchover(): void {
    this.#decision.asked = true;
  }

  /** Whether the guest may run at the peer: from the switch, or the end of precopy, on. */
  get switched(): boolean {
    return this.#switched || this.#completing;
  }

  /**
   * Gives the migration up while the guest is still here; false when it is too late for that: QEMU 7.2
   * obeys in postcopy as well, and then neither end has all of the guest.
   */
  async cancel(): Promise<boolean> {
    if (this.switched) return false;
    this.#cancelled = true;
    await this.#qmp.run("migrate_cancel");
    return true;
  }

  /** Follows it no more: it goes on by itself, as it was told to. `migrate` then throws. */
  leave(): void {
    this.#left = true;
    this.#recovery.end();
    this.#woken.resolve();
  }

  /**
   * Migrates to `uri`, and resolves when every page is there. @throws DriveError with QEMU's words.
   */
  async migrate(uri: string): Promise<void> {
    const deadline = performance.now() + this.#settings.patienceMs;
    let told = false;
    for (;;) {
      // Between two tries there is nothing that QEMU could cancel.
      if (this.#cancelled) throw new DriveError("STOPPED", "The migration was given up");
      await this.#qmp.run("migrate", { uri });
      const failure = await this.#follow(uri);
      if (failure === undefined) return;
      const mayRetry = NOBODY_THERE.test(failure.message) && this.round === 0;
      if (!mayRetry || performance.now() > deadline) throw failure;
      if (!told) this.#emit({ kind: "waiting" });
      told = true;
      await Bun.sleep(POLL_MS);
    }
  }

  /** Follows a migration to its end; the failure it ended with, undefined for none. */
  async #follow(uri: string): Promise<DriveError | undefined> {
    const began = performance.now();
    let seen = "";
    let seenMs = began;
    for (;;) {
      if (this.#left) return leftError();
      this.reply = await queryMigrate(this.#qmp);
      const status = this.reply.status ?? "none";
      if (status !== seen) {
        this.#emit({ kind: "status", status });
        seenMs = performance.now();
      }
      seen = status;
      switch (status) {
        case "completed":
          this.#recovery.noteLink();
          return undefined;
        case "failed":
        case "cancelled":
          return this.#failed(status);
        case "postcopy-paused":
          if (!(await this.#recovery.connect(uri))) return this.#noMoreTries();
          break;
        case "postcopy-recover":
          if (!(await this.#recovery.shakeHands(performance.now() - seenMs))) return hangingError();
          break;
        case "postcopy-active":
        case "postcopy-device":
          this.#noteSwitch();
          this.#recovery.noteLink();
          break;
        case "active":
          await this.#followPrecopy(began);
      }
      await this.#pause(this.#settings.keep ? KEEP_POLL_MS : POLL_MS);
    }
  }

  /** Waits until an event of QEMU is worth a look, at most for a time. */
  async #pause(ms: number): Promise<void> {
    await Promise.race([this.#woken.promise, Bun.sleep(ms)]);
    this.#woken = Promise.withResolvers<void>();
  }

  #noteSwitch(): void {
    this.#switched = true;
    this.atSwitch ??= this.reply;
  }

  #failed(status: string): DriveError {
    const why = this.reply["error-desc"] ?? `its migration is ${status}`;
    return new DriveError("QEMU_FAILED", `QEMU could not send the guest: ${why}`);
  }

  async #followPrecopy(began: number): Promise<void> {
    if (this.#switched || this.#cancelled) return;
    const reason = this.#decision.reason(this.reply, performance.now() - began);
    if (reason === undefined) return await this.#letGo();
    // From before QEMU hears of it: a cancel must not come behind it.
    this.#switched = true;
    try {
      await this.#qmp.run("migrate-start-postcopy");
    } catch (error) {
      if (error instanceof QmpError) this.#switched = this.atSwitch !== undefined;
      // It may have completed, or failed, since it was asked: the next look tells.
      if ((await queryMigrate(this.#qmp)).status === "active") throw error;
      return;
    }
    const dirtyPages = Math.ceil((this.reply.ram?.remaining ?? 0) / TARGET_PAGE_SIZE);
    this.#emit({ kind: "switchover", reason, dirtyPages });
  }

  /** Full speed, once QEMU has measured its rate. */
  async #letGo(): Promise<void> {
    if (!this.#held || (this.reply.ram?.mbps ?? 0) === 0) return;
    this.#held = false;
    await this.#qmp.run("migrate-set-parameters", { "max-bandwidth": this.#precopyBytesPerSecond });
  }
}
