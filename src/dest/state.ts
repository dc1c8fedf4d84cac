/**
 * The destination's state (QEMU's PostcopyState): which commands may come when. A command in the
 * wrong state is refused by name; it means that the two ends disagree about where they are.
 */
import { commandName } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { StreamError } from "../util/errors.ts";

export const STATES = ["NONE", "ADVISE", "DISCARD", "LISTENING", "RUNNING", "END"] as const;
export type DestState = (typeof STATES)[number];

/** In which states each command of postcopy may come, and the state after it. */
const RULES: Partial<Record<Command["kind"], { from: readonly DestState[]; to: DestState }>> = {
  postcopyAdvise: { from: ["NONE"], to: "ADVISE" },
  postcopyRamDiscard: { from: ["ADVISE", "DISCARD"], to: "DISCARD" },
  postcopyListen: { from: ["ADVISE", "DISCARD"], to: "LISTENING" },
  postcopyRun: { from: ["LISTENING"], to: "RUNNING" },
};

export class StateMachine {
  #state: DestState = "NONE";

  get state(): DestState {
    return this.#state;
  }

  /** Moves on for a command. @throws StreamError WRONG_STATE. */
  take(command: Command["kind"]): void {
    const rule = RULES[command];
    if (rule === undefined) return;
    if (!rule.from.includes(this.#state)) {
      const name = commandName(command);
      throw new StreamError(
        "WRONG_STATE",
        `${name} came in state ${this.#state}; it may come in ${rule.from.join(" or ")}`,
      );
    }
    this.#state = rule.to;
  }

  /** The package may come once postcopy was advised, and once only. */
  requirePackageAllowed(): void {
    if (this.#state === "ADVISE" || this.#state === "DISCARD") return;
    throw new StreamError("WRONG_STATE", `PACKAGED came in state ${this.#state}`);
  }

  /**
   * The stream may end by itself (a completion in precopy) as long as nothing was discarded: what
   * was discarded only comes after LISTEN.
   */
  requireEndAllowed(): void {
    if (this.#state === "NONE" || this.#state === "ADVISE") return;
    throw new StreamError("WRONG_STATE", `The stream ended in state ${this.#state}`);
  }

  end(): void {
    this.#state = "END";
  }
}
