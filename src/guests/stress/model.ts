/**
 * The model: what a guest's versions must be, computed again from its parameters and the number of
 * operations of each worker, without a look at its memory or its state. An oracle that did not
 * travel: it finds an operation that was lost or done twice, which no check of pages against
 * versions can when both are wrong alike.
 */
import type { WorkerProgress } from "./control.ts";
import { GENERATOR_WORDS, seedGenerator } from "./generator.ts";
import {
  indexOfPage,
  nextOperation,
  OPERATION_DISCARD,
  OPERATION_READ,
  OPERATION_WRITE,
  planWorker,
  type Operation,
} from "./operation.ts";
import type { StressParameters } from "./parameters.ts";
import { permute } from "./permutation.ts";
import { versionAfterDiscard, versionAfterWrite } from "./version.ts";

/** Operations of one worker that are worth repeating; a longer life is left to the audit. */
export const MODEL_OPERATIONS_MAX = 200_000_000;

/** What became of one worker's pages in the model. */
export interface WorkerModel {
  /** The version words of the worker's pages: entry i is page worker + i * workers. */
  versions: Uint32Array;
  /** The generator's state, GENERATOR_WORDS words. */
  generator: Uint32Array;
}

/** How a guest compares with its model. */
export interface ModelVerdict {
  pagesChecked: number;
  pagesWrong: number;
  /** Workers whose generator is not where the model's is. */
  workersAstray: number;
  /** A wrong page, the version word of the model and the guest's. */
  first?: { page: number; expected: number; found: number };
}

/** Repeats the life of a worker from its birth: populating, then `operations` operations. */
export function repeatWorker(
  parameters: StressParameters,
  worker: number,
  operations: number,
): WorkerModel {
  const plan = planWorker(parameters, worker);
  const versions = new Uint32Array(plan.pages);
  for (let rank = 0; rank < plan.writtenPages; rank++) {
    versions[permute(plan.permutation, rank)] = versionAfterWrite(0);
  }
  const state = new Int32Array(GENERATOR_WORDS);
  seedGenerator(state, 0, parameters.seed, worker);
  const operation: Operation = { kind: OPERATION_READ, page: 0 };
  for (let done = 0; done < operations; done++) {
    nextOperation(plan, state, 0, operation);
    const index = indexOfPage(plan, operation.page);
    const version = versions[index]!;
    if (operation.kind === OPERATION_WRITE) versions[index] = versionAfterWrite(version);
    else if (operation.kind === OPERATION_DISCARD) versions[index] = versionAfterDiscard(version);
  }
  return { versions, generator: Uint32Array.from(state) };
}

/**
 * Compares one worker's part of a guest with its model; `versions` has one word for each page of
 * the guest. Takes about 40 ns an operation. Different workers can be compared on different threads.
 */
export function compareWorker(
  parameters: StressParameters,
  worker: number,
  progress: WorkerProgress,
  versions: Uint32Array,
): ModelVerdict {
  const model = repeatWorker(parameters, worker, progress.operations);
  const astray = model.generator.some((word, index) => word !== progress.generator[index]);
  const verdict: ModelVerdict = {
    pagesChecked: model.versions.length,
    pagesWrong: 0,
    workersAstray: astray ? 1 : 0,
  };
  for (let index = 0; index < model.versions.length; index++) {
    const page = worker + index * parameters.workers;
    const expected = model.versions[index]!;
    const found = versions[page]!;
    if (found === expected) continue;
    verdict.pagesWrong++;
    verdict.first ??= { page, expected, found };
  }
  return verdict;
}

/** One verdict of several. */
export function mergeVerdicts(verdicts: readonly ModelVerdict[]): ModelVerdict {
  const merged: ModelVerdict = { pagesChecked: 0, pagesWrong: 0, workersAstray: 0 };
  for (const verdict of verdicts) {
    merged.pagesChecked += verdict.pagesChecked;
    merged.pagesWrong += verdict.pagesWrong;
    merged.workersAstray += verdict.workersAstray;
    if (verdict.first !== undefined) merged.first ??= verdict.first;
  }
  return merged;
}
