/**
 * The life of one stress worker: populate its pages if that is still to be done, then check and
 * write pages until it is told to stop or finds one that is wrong.
 */
import { COUNTER } from "./control-layout.ts";
import { examineMismatch } from "./mismatch.ts";
import {
  nextOperation,
  OPERATION_DISCARD,
  OPERATION_READ,
  OPERATION_WRITE,
  pageOfRank,
  planWorker,
  type Operation,
  type WorkerPlan,
} from "./operation.ts";
import { Pace } from "./pace.ts";
import type { MemoryView } from "./page-map.ts";
import { STRESS_PAGE_BYTES } from "./parameters.ts";
import { checkPage, fillPage } from "./pattern.ts";
import { openStressWorld, type StressSetup, type StressWorld } from "./setup.ts";
import { versionAfterDiscard, versionAfterWrite } from "./version.ts";
import { WorkerControl, type Clock } from "./worker-control.ts";

/** What a worker can do with memory at an address. */
export interface StressMemory {
  view: MemoryView;
  /** Gives the pages of [address, address + length) back; they read as zeros then (madvise(2)). */
  discard(address: number, length: number): void;
}

/**
 * Runs worker `worker` of a guest until STOP, or until it finds a mismatch, which it leaves in the
 * control block. Blocks its thread. Errors of `memory` pass through; in every case the control
 * block then says that the worker has exited.
 */
export function runStressWorker(
  setup: StressSetup,
  worker: number,
  memory: StressMemory,
  clock: Clock,
): void {
  const control = new WorkerControl(setup.control, worker, clock);
  control.start();
  try {
    const world = openStressWorld(setup, memory.view);
    const plan = planWorker(setup.parameters, worker);
    if (!control.populated) populate(world, plan, control);
    if (control.populated) operate(world, plan, control, memory);
  } finally {
    control.exit();
  }
}

/** Writes the first version of every page that is not to stay zero; gives up on STOP. */
function populate(world: StressWorld, plan: WorkerPlan, control: WorkerControl): void {
  const { map, pattern, versions } = world;
  for (let rank = 0; rank < plan.writtenPages; rank++) {
    if (control.stopped) return;
    const page = pageOfRank(plan, rank);
    const version = versionAfterWrite(0);
    map.seek(page);
    fillPage(pattern, map.window, map.word, page, version);
    versions[page] = version;
    control.count(COUNTER.populatedPages, 1);
  }
  control.setPopulated();
}

function operate(
  world: StressWorld,
  plan: WorkerPlan,
  control: WorkerControl,
  memory: StressMemory,
): void {
  const pace = new Pace(world.parameters);
  const operation: Operation = { kind: OPERATION_READ, page: 0 };
  while (control.mayRun()) {
    nextOperation(plan, control.words, control.generator, operation);
    if (operation.kind === OPERATION_DISCARD) {
      discard(world, operation.page, control, memory);
    } else if (!access(world, operation, control)) {
      return;
    }
    control.count(COUNTER.operations, 1);
    if (operation.kind === OPERATION_READ) continue;
    const waitMs = pace.charge();
    if (waitMs > 0) control.idle(waitMs);
  }
}

/** Discards a page without a look at it: a guest may do so before the page has even arrived. */
function discard(
  world: StressWorld,
  page: number,
  control: WorkerControl,
  memory: StressMemory,
): void {
  world.map.seek(page);
  memory.discard(world.map.address, STRESS_PAGE_BYTES);
  world.versions[page] = versionAfterDiscard(world.versions[page]!);
  world.changed.set(page);
  control.count(COUNTER.discards, 1);
}

/** Checks a page and, unless it is only read, writes its next version. False if it was wrong. */
function access(world: StressWorld, operation: Operation, control: WorkerControl): boolean {
  const { map, pattern, versions } = world;
  const { page } = operation;
  const version = versions[page]!;
  map.seek(page);
  const before = performance.now();
  const wordIndex = checkPage(pattern, map.window, map.word, page, version);
  control.countAccess(performance.now() - before);
  if (wordIndex !== -1) {
    control.reportMismatch(examineMismatch(pattern, map, page, version, wordIndex));
    return false;
  }
  if (operation.kind === OPERATION_WRITE) {
    const next = versionAfterWrite(version);
    // The memory first: the version word must never promise what is not there yet.
    fillPage(pattern, map.window, map.word, page, next);
    versions[page] = next;
    world.changed.set(page);
    control.count(COUNTER.writes, 1);
  } else {
    control.count(COUNTER.reads, 1);
  }
  return true;
}
