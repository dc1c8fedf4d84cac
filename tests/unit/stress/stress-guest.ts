/** A whole stress guest for tests: shared memory, real worker threads, and the control block. */
import { mergeAudits, auditShare, type AuditResult } from "../../../src/guests/stress/audit.ts";
import { StressControl } from "../../../src/guests/stress/control.ts";
import { compareWorker, mergeVerdicts } from "../../../src/guests/stress/model.ts";
import type { ModelVerdict } from "../../../src/guests/stress/model.ts";
import { STRESS_DEFAULTS, type StressParameters } from "../../../src/guests/stress/parameters.ts";
import {
  continueStressSetup,
  createStressSetup,
  openStressWorld,
  type StressSetup,
  type StressWorld,
} from "../../../src/guests/stress/setup.ts";
import type { StressState } from "../../../src/guests/stress/state.ts";
import { SharedMemory, type SharedBlock } from "./shared-memory.ts";

export const MEBIBYTE = 2 ** 20;
/** Far more than anything takes: a test that reaches it has failed. */
export const DEADLINE_MS = 10_000;

/** What the fixture thread is told. */
export interface WorkerOrder {
  setup: StressSetup;
  worker: number;
  memory: SharedBlock[];
}

/** A small guest that writes as fast as it can. */
export function smallParameters(changes: Partial<StressParameters> = {}): StressParameters {
  return { ...STRESS_DEFAULTS, size: 4 * MEBIBYTE, rate: 0, ...changes };
}

/** Waits for a condition that other threads bring about. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (!condition()) {
    if (performance.now() > deadline)
      throw new Error(`not within ${DEADLINE_MS} ms: ${String(condition)}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

export class StressGuest implements AsyncDisposable {
  readonly setup: StressSetup;
  readonly memory: SharedMemory;
  readonly control: StressControl;
  readonly world: StressWorld;
  /** What each thread ended with: undefined, or the text of its error. */
  readonly ends: Promise<(string | undefined)[]>;
  readonly #threads: Worker[] = [];

  constructor(setup: StressSetup, memory: SharedMemory) {
    this.setup = setup;
    this.memory = memory;
    this.control = new StressControl(setup.control);
    this.world = openStressWorld(setup, memory.view);
    this.ends = Promise.all(
      Array.from({ length: setup.parameters.workers }, (_, worker) => this.#start(worker)),
    );
  }

  /** A guest that is populated and paused. */
  static async create(parameters: StressParameters): Promise<StressGuest> {
    const memory = SharedMemory.allocate(parameters);
    const guest = new StressGuest(createStressSetup(parameters, memory.ranges), memory);
    await until(() => guest.control.populated && guest.control.parked);
    return guest;
  }

  /** A guest that goes on from a state over a copy of the memory; paused. */
  static async continue(state: StressState, memory: SharedMemory): Promise<StressGuest> {
    const guest = new StressGuest(continueStressSetup(state, memory.ranges), memory);
    await until(() => guest.control.parked);
    return guest;
  }

  #start(worker: number): Promise<string | undefined> {
    const thread = new Worker(new URL("./stress-worker-fixture.ts", import.meta.url).href);
    this.#threads.push(thread);
    const order: WorkerOrder = { setup: this.setup, worker, memory: this.memory.blocks };
    return new Promise((resolve) => {
      thread.onmessage = ({ data }) => resolve(data.error);
      thread.onerror = ({ message }) => resolve(message);
      thread.postMessage(order);
    });
  }

  /** Runs on until every worker has done at least `count` more operations, then pauses. */
  async run(count: number): Promise<void> {
    const workers = Array.from({ length: this.control.workers }, (_, worker) => worker);
    const goals = workers.map((worker) => this.control.counters(worker).operations + count);
    this.control.resume();
    await until(() => {
      // A worker that found something, or failed, will not get there.
      if (this.control.mismatches > 0 || this.control.exited) throw new Error("the guest failed");
      return workers.every((worker) => this.control.counters(worker).operations >= goals[worker]!);
    });
    if (!this.control.pause(DEADLINE_MS)) throw new Error("the guest did not pause");
  }

  /** Checks every page. */
  audit(): AuditResult {
    return mergeAudits([auditShare(this.world, 0, 2), auditShare(this.world, 1, 2)]);
  }

  /** Compares with the model. */
  model(): ModelVerdict {
    const { parameters, versions } = this.world;
    const verdicts = this.control
      .progress()
      .map((progress, worker) => compareWorker(parameters, worker, progress, versions));
    return mergeVerdicts(verdicts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.control.stop(0);
    await this.ends;
    for (const thread of this.#threads) thread.terminate();
  }
}
