/** When a QEMU that is driven switches over: the policy, by what its monitor tells of precopy. */
import type { MigrateReply } from "../../qmp/messages.ts";
import { decideAfterRound } from "../../source/switchover.ts";
import type { RoundResult, SwitchoverPolicy } from "../../source/switchover.ts";
import { PrecopyRounds } from "./rounds.ts";

/**
 * What a guest that goes on here may have left to send when it is stopped for good measure: an idle
 * one would else complete in precopy, which shows nothing of what the peer does with it. At least so
 * much, and what is sent in so long, as a look may be late.
 */
const KEEP_REST_BYTES = 32 * 1024 * 1024;
const KEEP_REST_MS = 20;
/** What it depends on. */
export interface SwitchSettings {
  policy: SwitchoverPolicy;
  downtimeLimitMs: number;
  /** The guest goes on here afterwards: it must be sent by postcopy, so that this can be judged. */
  keep: boolean;
}

export class SwitchDecision {
  /** The operator asked for it. */
  asked = false;
  readonly #settings: SwitchSettings;
  readonly #rounds: PrecopyRounds;
  readonly #tell: (result: RoundResult) => void;
  #previous: RoundResult | undefined;

  /** `limitMs` is the downtime limit that QEMU was given; `tell` hears of each round that ends. */
  constructor(settings: SwitchSettings, limitMs: number, tell: (result: RoundResult) => void) {
    this.#settings = settings;
    this.#rounds = new PrecopyRounds(limitMs);
    this.#tell = tell;
  }

  /** The precopy round that is under way, from 1; 0 before the first. */
  get round(): number {
    return this.#rounds.current;
  }

  /** Why it is time to switch over, by the last answer of query-migrate; undefined while it is not. */
  reason(reply: MigrateReply, elapsedMs: number): string | undefined {
    const { policy, keep, downtimeLimitMs } = this.#settings;
    if (this.asked) return "the operator asked for it";
    if (policy.kind === "now") return "asked to switch at once";
    if (policy.kind === "after" && elapsedMs >= policy.ms) {
      return `asked to switch after ${policy.ms} ms`;
    }
    const result = this.#rounds.take(reply, performance.now());
    if (keep && this.#littleIsLeft(reply)) return "little is left to send";
    if (result === undefined) return undefined;
    const previous = this.#previous;
    this.#previous = result;
    this.#tell(result);
    const decision = decideAfterRound(policy, result, previous, elapsedMs, downtimeLimitMs, true);
    if (decision.action === "postcopy") return decision.reason;
    // What fits QEMU completes by itself, unless it has to be seen whether the peer runs the guest.
    return decision.action === "complete" && keep ? decision.reason : undefined;
  }

  /** Under --keep: so little that QEMU would complete by itself before the next look. */
  #littleIsLeft({ ram }: MigrateReply): boolean {
    const rest = ram?.remaining ?? 0;
    const little = Math.max(KEEP_REST_BYTES, KEEP_REST_MS * this.#rounds.bytesPerMs);
    if (rest === 0 || rest > little) return false;
    const { policy } = this.#settings;
    // The end of the first round says nothing of how much is dirty.
    return policy.kind !== "rounds" || this.round > 1 || policy.rounds === 1;
  }
}
