/** A vCPU of the stress guest; afterwards, one share of the audit. */
import { discardPages, viewMemory } from "../../syscalls/memory.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { auditShare } from "../guests/stress/audit.ts";
import { StressControl } from "../guests/stress/control.ts";
import { compareWorker, MODEL_OPERATIONS_MAX } from "../guests/stress/model.ts";
import { openPool } from "../guests/stress/pattern.ts";
import { openStressWorld } from "../guests/stress/setup.ts";
import { runStressWorker } from "../guests/stress/worker-loop.ts";
import type { StressResult, StressTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

const memory = { view: viewMemory, discard: discardPages };

function run(task: StressTask): StressResult {
  const { setup, worker } = task;
  if (task.kind === "run") {
    runStressWorker(setup, worker, memory, monotonicNs);
    return undefined;
  }
  const { parameters } = setup;
  const world = openStressWorld(setup, viewMemory);
  const audit = auditShare(world, worker, parameters.workers);
  const progress = new StressControl(setup.control).progress()[worker];
  if (progress === undefined) throw new Error(`there is no worker ${worker}`);
  const repeatable = progress.operations <= MODEL_OPERATIONS_MAX;
  const model = repeatable
    ? compareWorker(parameters, worker, progress, world.versions)
    : undefined;
  return { audit, model };
}

// Before there is a task: at the destination the guest stands still when its threads are given theirs.
openPool();
serveThread(run);
