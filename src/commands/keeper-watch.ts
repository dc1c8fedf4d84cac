/**
 * Watches over whoever keeps a VMM's userfaultfd, where that is a process: when it ends, that is said at
 * once, and the next one that is started in its place is given what it had.
 */
import { POLL } from "../../syscalls/descriptor.ts";
import { KeeperError } from "../keeper/keeper.ts";
import { isReady } from "../keeper/readiness.ts";
import { ProcessWatch } from "../threads/process-watch.ts";
import { log } from "../util/log.ts";
import type { Output } from "./common.ts";
import type { KeptVmm } from "./kept-vmm.ts";

/** Between two looks for the next keeper. */
const LOOK_PAUSE_MS = 500;

export class KeeperWatch {
  readonly #kept: KeptVmm;
  /** The VMM's process, -1 where there is no descriptor of it: with it a holder ends as well. */
  readonly #vmmFd: number;
  readonly #output: Pick<Output, "warn">;
  readonly #ending = new AbortController();
  readonly #over: Promise<"over">;
  readonly #done: Promise<void>;

  /** Begins; `vmmFd` stays open until `end` has resolved. */
  constructor(kept: KeptVmm, vmmFd: number, output: Pick<Output, "warn">) {
    this.#kept = kept;
    this.#vmmFd = vmmFd;
    this.#output = output;
    this.#over = new Promise((resolve) => {
      this.#ending.signal.addEventListener("abort", () => resolve("over"));
    });
    this.#done = this.#watch().catch((error: unknown) => {
      // The VMM is filled no worse for it.
      output.warn("KEEPER_UNWATCHED", `${kept.keeperText} is watched no more: ${String(error)}`);
    });
  }

  /** Nobody wants to know any more. */
  async end(): Promise<void> {
    this.#ending.abort();
    await this.#done;
  }

  async #watch(): Promise<void> {
    while ((await this.#awaitEnd()) === "ended" && !this.#vmmHasEnded) {
      const { keeperText } = this.#kept;
      const message =
        `${keeperText} has ended, and nobody keeps the VMM's userfaultfd: should this process be ` +
        "killed now, no other one goes on. Start another one there, and it is given to that";
      this.#output.warn("KEEPER_LOST", message.replace(/^t/, "T"));
      if (!(await this.#giveToNext())) return;
      log.info(`The VMM's userfaultfd is kept by ${keeperText} again`);
    }
  }

  /** Waits for the end of the keeper, or of what is asked for here. */
  async #awaitEnd(): Promise<"ended" | "over"> {
    const fd = this.#kept.keeperProcessFd;
    // It outlives this process, or cannot be seen.
    if (fd === undefined) return "over";
    const watch = new ProcessWatch(fd);
    try {
      const ended = watch.ended.then(() => "ended" as const);
      return await Promise.race([ended, this.#over]);
    } finally {
      await watch.end();
    }
  }

  get #vmmHasEnded(): boolean {
    return this.#vmmFd >= 0 && isReady(this.#vmmFd, POLL.POLLIN);
  }

  /** Looks for another keeper until there is one; false when nobody wants to know any more. */
  async #giveToNext(): Promise<boolean> {
    const { signal } = this.#ending;
    for (;;) {
      await Promise.race([Bun.sleep(LOOK_PAUSE_MS), this.#over]);
      if (signal.aborted) return false;
      try {
        await this.#kept.keepAgain(signal);
        return true;
      } catch (error) {
        if (!(error instanceof KeeperError)) throw error;
      }
    }
  }
}
