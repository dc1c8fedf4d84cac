/**
 * Drives a running QEMU through its monitor as an operator would by hand: capabilities and
 * parameters on, `migrate`, `migrate-start-postcopy` when the policy says so, and a look at it now
 * and then. The data go from that QEMU to its peer; nothing of them passes here.
 */
import type { RoundResult, SwitchoverPolicy } from "../../source/switchover.ts";
import { decideAfterRound } from "../../source/switchover.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { capabilitiesSchema, parametersSchema, statusSchema } from "../../qmp/messages.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { PostcopyError } from "../../util/errors.ts";
import { queryMigrate, switchCapabilities } from "./migration.ts";

/** How often QEMU is asked how far it is. */
const POLL_MS = 25;
/** The same where the end of a round must not be missed. */
const KEEP_POLL_MS = 4;
/**
 * What a guest that goes on here may have left to send when it is stopped for good measure: an idle
 * one would else complete in precopy, which shows nothing of what the peer does with it.
 */
const KEEP_REST_BYTES = 32 * 1024 * 1024;
/** Precopy without a limit of ours: QEMU's own default would be 128 MiB a second. */
const UNLIMITED_BYTES_PER_SECOND = 2 ** 40;
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
}

/** What happens meanwhile. */
export type DriveEvent =
  | { kind: "status"; status: string }
  | { kind: "round"; result: RoundResult }
  | { kind: "switchover"; reason: string; dirtyPages: number }
  | { kind: "waiting" };

/** The guest cannot be moved, or was not; QEMU's own words are in the message. */
export class DriveError extends PostcopyError {}

type Capabilities = Readonly<Record<string, boolean>>;

export class QemuSourceDriver {
  /** The last answer of query-migrate. */
  reply: MigrateReply = {};
  /** The answer in which the switch to postcopy was first seen: what precopy had sent until then. */
  atSwitch: MigrateReply | undefined;
  readonly #qmp: QmpClient;
  readonly #settings: DriveSettings;
  readonly #emit: (event: DriveEvent) => void;
  #before: { capabilities: Capabilities; parameters: Record<string, number> } | undefined;
  #switchAsked = false;
  #switched = false;
  #cancelled = false;
  #previous: RoundResult | undefined;
  #roundStart: { reply: MigrateReply; ms: number } | undefined;

  constructor(qmp: QmpClient, settings: DriveSettings, emit: (event: DriveEvent) => void) {
    this.#qmp = qmp;
    this.#settings = settings;
    this.#emit = emit;
    // A short postcopy may be over between two looks; QEMU's events leave nothing out.
    qmp.onEvent(({ name, data }) => {
      if (name === "MIGRATION" && data["status"] === "postcopy-active") this.#noteSwitch();
    });
  }

  /** Switches on what is needed. @throws DriveError, QmpError when this QEMU cannot migrate now. */
  async prepare(): Promise<void> {
    const { running, status } = await this.#qmp.execute("query-status", {}, statusSchema);
    if (!running) {
      throw new DriveError("NOT_RUNNING", `The guest does not run: QEMU is in state ${status}`, {
        hint: "in postmigrate it has moved already; else cont lets it run",
      });
    }
    const { "blocked-reasons": blocked = [] } = await queryMigrate(this.#qmp);
    if (blocked.length > 0) {
      throw new DriveError("BLOCKED", `QEMU cannot migrate this guest: ${blocked.join("; ")}`);
    }
    await this.#remember();
    const { keep, preempt, maxBandwidth, maxPostcopyBandwidth, downtimeLimitMs } = this.#settings;
    const needed = { "postcopy-ram": true, ...(preempt ? { "postcopy-preempt": true } : {}) };
    await switchCapabilities(this.#qmp, needed, {
      events: true,
      // A guest may have come here with it; two QEMUs that differ in it wait for each other for ever.
      "postcopy-preempt": preempt,
      ...(keep ? { "release-ram": false } : {}),
    });
    await this.#qmp.run("migrate-set-parameters", {
      "max-bandwidth": maxBandwidth === 0 ? UNLIMITED_BYTES_PER_SECOND : Math.round(maxBandwidth),
      "max-postcopy-bandwidth": Math.round(maxPostcopyBandwidth),
      // At 0 QEMU 7.2 would complete at the end of its first round, whatever is dirty by then.
      "downtime-limit": keep ? 1 : Math.round(downtimeLimitMs),
    });
  }

  async #remember(): Promise<void> {
    const known = await this.#qmp.execute("query-migrate-capabilities", {}, capabilitiesSchema);
    const { ...all } = await this.#qmp.execute("query-migrate-parameters", {}, parametersSchema);
    const names = ["max-bandwidth", "max-postcopy-bandwidth", "downtime-limit"] as const;
    const parameters = Object.fromEntries(names.map((name) => [name, all[name] ?? 0]));
    const capabilities = Object.fromEntries(
      known
        .filter(({ capability }) =>
          /^(postcopy-(ram|preempt)|events|release-ram)$/.test(capability),
        )
        .map(({ capability, state }) => [capability, state]),
    );
    this.#before = { capabilities, parameters };
  }

  /** Puts back what `prepare` changed, where QEMU lets us. */
  async restoreSettings(): Promise<void> {
    const before = this.#before;
    if (before === undefined || this.#qmp.failure !== undefined) return;
    await switchCapabilities(this.#qmp, {}, before.capabilities);
    await this.#qmp.run("migrate-set-parameters", before.parameters);
  }

  /** Switches over as soon as QEMU can. */
  switchover(): void {
    this.#switchAsked = true;
  }

  /** Whether the guest may run at the peer: from the switch to postcopy on. */
  get switched(): boolean {
    return this.#switched;
  }

  /** Gives the migration up while the guest is still here; false when it is too late for that. */
  async cancel(): Promise<boolean> {
    if (this.#switched) return false;
    this.#cancelled = true;
    await this.#qmp.run("migrate_cancel");
    return true;
  }

  /**
   * Migrates to `uri`, and resolves when every page is there. @throws DriveError with QEMU's words.
   */
  async migrate(uri: string): Promise<void> {
    const deadline = performance.now() + this.#settings.patienceMs;
    let told = false;
    for (;;) {
      await this.#qmp.run("migrate", { uri });
      const failure = await this.#follow();
      if (failure === undefined) return;
      const mayRetry = NOBODY_THERE.test(failure.message) && this.#roundStart === undefined;
      if (!mayRetry || this.#cancelled || performance.now() > deadline) throw failure;
      if (!told) this.#emit({ kind: "waiting" });
      told = true;
      await Bun.sleep(POLL_MS);
    }
  }

  /** Follows a migration to its end; the failure it ended with, undefined for none. */
  async #follow(): Promise<DriveError | undefined> {
    const began = performance.now();
    let seen = "";
    for (;;) {
      this.reply = await queryMigrate(this.#qmp);
      const status = this.reply.status ?? "none";
      if (status !== seen) this.#emit({ kind: "status", status });
      seen = status;
      switch (status) {
        case "completed":
          return undefined;
        case "failed":
        case "cancelled":
          return this.#failed(status);
        case "postcopy-paused":
          return pausedError();
        case "postcopy-active":
        case "postcopy-device":
          this.#noteSwitch();
          break;
        case "active":
          await this.#followPrecopy(began);
      }
      await Bun.sleep(this.#settings.keep ? KEEP_POLL_MS : POLL_MS);
    }
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
    const reason = this.#reasonToSwitch(began);
    if (reason === undefined || this.#switched) return;
    try {
      await this.#qmp.run("migrate-start-postcopy");
    } catch (error) {
      // It may have completed, or failed, since it was asked: the next look tells.
      if ((await queryMigrate(this.#qmp)).status === "active") throw error;
      return;
    }
    this.#switched = true;
    const dirtyPages = Math.ceil((this.reply.ram?.remaining ?? 0) / TARGET_PAGE_SIZE);
    this.#emit({ kind: "switchover", reason, dirtyPages });
  }

  /** Why it is time to switch over; undefined while it is not. */
  #reasonToSwitch(began: number): string | undefined {
    const { policy, keep, downtimeLimitMs } = this.#settings;
    if (this.#switchAsked) return "the operator asked for it";
    if (policy.kind === "now") return "asked to switch at once";
    const elapsedMs = performance.now() - began;
    if (policy.kind === "after" && elapsedMs >= policy.ms) {
      return `asked to switch after ${policy.ms} ms`;
    }
    const result = this.#endOfRound();
    const rest = this.reply.ram?.remaining ?? 0;
    if (keep && policy.kind === "auto" && rest > 0 && rest <= KEEP_REST_BYTES) {
      return "little is left to send";
    }
    if (result === undefined) return undefined;
    const previous = this.#previous;
    this.#previous = result;
    this.#emit({ kind: "round", result });
    const decision = decideAfterRound(policy, result, previous, elapsedMs, downtimeLimitMs, true);
    if (decision.action === "postcopy") return decision.reason;
    // What fits QEMU completes by itself, unless it has to be seen whether the peer runs the guest.
    return decision.action === "complete" && keep ? "little is dirty any more" : undefined;
  }

  /** What a round came to, when QEMU has begun the next one since the last look. */
  #endOfRound(): RoundResult | undefined {
    const now = { reply: this.reply, ms: performance.now() };
    const start = (this.#roundStart ??= now);
    const [from, to] = [start.reply.ram, now.reply.ram];
    if (from === undefined || to === undefined) {
      this.#roundStart = now;
      return undefined;
    }
    const round = from["dirty-sync-count"];
    if (to["dirty-sync-count"] === round) return undefined;
    this.#roundStart = now;
    return {
      round,
      pagesNormal: Math.max(0, to.normal - from.normal),
      pagesZero: Math.max(0, to.duplicate - from.duplicate),
      bytes: Math.max(0, to.transferred - from.transferred),
      dirtyPagesAfter: Math.ceil(to.remaining / TARGET_PAGE_SIZE),
      durationMs: now.ms - start.ms,
    };
  }
}

function pausedError(): DriveError {
  return new DriveError("PAUSED", "The link broke after the switch: both QEMUs are paused", {
    hint:
      "at the destination's monitor: migrate_recover tcp:HOST:PORT, then at this one: " +
      "migrate -r tcp:HOST:PORT",
  });
}

/**
 * Lets a guest that was sent go on here, as its peer has only kept it. A peer that runs a guest asks
 * for pages, one that keeps it never does: after a single request the guest must not run here.
 * @throws DriveError SPLIT_BRAIN.
 */
export async function continueGuest(qmp: QmpClient, driver: QemuSourceDriver): Promise<void> {
  const requests = driver.reply.ram?.["postcopy-requests"] ?? 0;
  if (driver.atSwitch === undefined || requests > 0) {
    const why =
      requests > 0
        ? `the peer asked for ${requests} pages, so it runs the guest`
        : "it completed before it switched to postcopy, which shows nothing";
    throw new DriveError("SPLIT_BRAIN", `The guest is not continued here: ${why}`, {
      hint: "if you are certain that it runs nowhere else: cont at the monitor",
    });
  }
  await qmp.run("cont");
}
