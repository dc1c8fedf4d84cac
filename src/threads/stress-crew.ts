/** The threads of a stress guest in this process, from its birth or arrival to its audit. */
import { StressControl } from "../guests/stress/control.ts";
import { mergeAudits } from "../guests/stress/audit.ts";
import type { AuditResult } from "../guests/stress/audit.ts";
import { unmapBlocks } from "../guests/stress/memory.ts";
import { mergeVerdicts } from "../guests/stress/model.ts";
import type { ModelVerdict } from "../guests/stress/model.ts";
import type { StressSetup } from "../guests/stress/setup.ts";
import { PostcopyError } from "../util/errors.ts";
import { Thread } from "./thread.ts";
import type { StressResult, StressTask } from "./tasks.ts";

/** How often main looks at a guest that it waits for. */
const POLL_MS = 5;
/** A worker stops within one operation; one that waits for a page takes until the page comes. */
const STOP_TIMEOUT_MS = 5000;

/** What the audit of a whole guest found. */
export interface GuestAudit {
  audit: AuditResult;
  /** The guest's versions against a re-run of all its operations; undefined after a long life. */
  model: ModelVerdict | undefined;
}

type StressThread = Thread<StressTask, never, StressResult>;

function makeThread(): StressThread {
  return new Thread<StressTask, never, StressResult>("stress", () => {});
}

/** Loads threads before it is known what they will run, so that a switchover need not wait. */
export function preloadStressThreads(count: number): StressThread[] {
  return Array.from({ length: count }, makeThread);
}

export class StressCrew {
  readonly setup: StressSetup;
  readonly control: StressControl;
  readonly #threads: StressThread[];
  readonly #lives: Promise<StressResult>[];
  #failure: Error | undefined;

  /** Starts the guest's threads; they populate, or park, until `control.resume()`. */
  constructor(setup: StressSetup, preloaded: StressThread[] = []) {
    this.setup = setup;
    this.control = new StressControl(setup.control);
    const { workers } = setup.parameters;
    for (const spare of preloaded.splice(workers)) spare.end();
    this.#threads = [...preloaded];
    while (this.#threads.length < workers) this.#threads.push(makeThread());
    this.#lives = this.#threads.map((thread, worker) => thread.run({ kind: "run", setup, worker }));
    for (const life of this.#lives) {
      life.catch((error: unknown) => {
        this.#failure ??= error instanceof Error ? error : new Error(String(error));
      });
    }
  }

  /** Resolves when every page has its first version. */
  async populated(): Promise<void> {
    while (!this.control.populated) {
      this.#check();
      await Bun.sleep(POLL_MS);
    }
  }

  /** Lets the guest run for a while, and looks that it does not fail meanwhile. */
  async runFor(ms: number, stopped: () => boolean): Promise<void> {
    const end = performance.now() + ms;
    while (performance.now() < end && !stopped() && this.control.mismatches === 0) {
      this.#check();
      await Bun.sleep(Math.min(POLL_MS, ms));
    }
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the guest's life; its threads stay for the audit. */
  async stop(): Promise<void> {
    const deadline = performance.now() + STOP_TIMEOUT_MS;
    this.control.stop(0);
    while (!this.control.exited) {
      if (performance.now() > deadline) {
        throw new PostcopyError("GUEST_STUCK", "The stress guest did not stop when told to");
      }
      await Bun.sleep(POLL_MS);
    }
    await Promise.all(this.#lives);
  }

  /** Checks every page of the stopped guest, in all threads at once. */
  async audit(): Promise<GuestAudit> {
    const { setup } = this;
    const results = await Promise.all(
      this.#threads.map((thread, worker) => thread.run({ kind: "audit", setup, worker })),
    );
    const verdicts = results.filter((result) => result !== undefined);
    const models = verdicts.map((verdict) => verdict.model).filter((model) => model !== undefined);
    return {
      audit: mergeAudits(verdicts.map((verdict) => verdict.audit)),
      model: models.length === verdicts.length ? mergeVerdicts(models) : undefined,
    };
  }

  /** Ends the threads, which are idle after `stop`, and gives the guest's memory back. */
  end(): void {
    for (const thread of this.#threads) thread.end();
    unmapBlocks(this.setup.blocks);
  }
}
