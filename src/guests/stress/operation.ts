/**
 * What a worker does next. The sequence of a worker's operations follows from the parameters, the
 * worker's index and its generator alone, never from the memory: so a model can repeat it later
 * and say what the memory must hold.
 */
import { nextRandom } from "./generator.ts";
import { pageCount, type StressParameters } from "./parameters.ts";
import { createPermutation, permute, type Permutation } from "./permutation.ts";

/** Check the page and leave it: it is never written and must hold zeros. */
export const OPERATION_READ = 0;
/** Check the page, then write its next version. */
export const OPERATION_WRITE = 1;
/** Discard the page unseen: it must read as zeros until it is written again. */
export const OPERATION_DISCARD = 2;

const TWO_32 = 0x1_0000_0000;

/** The part of the guest that one worker owns. */
export interface WorkerPlan {
  readonly worker: number;
  readonly workers: number;
  /** Pages that the worker owns. Ranks 0 to this - 1 are permuted into its pages. */
  readonly pages: number;
  /** Ranks below this are hot. */
  readonly hotPages: number;
  /** Ranks from this on are never written. */
  readonly writtenPages: number;
  /** A draw below this goes to a hot page. */
  readonly hotThreshold: number;
  /** A draw below this discards. */
  readonly discardThreshold: number;
  readonly permutation: Permutation;
}

/** One operation; nextOperation writes into it, so that none is allocated. */
export interface Operation {
  kind: typeof OPERATION_READ | typeof OPERATION_WRITE | typeof OPERATION_DISCARD;
  /** Global page number. */
  page: number;
}

/** The plan of a worker (0 <= worker < parameters.workers) of a guest. */
export function planWorker(parameters: StressParameters, worker: number): WorkerPlan {
  const { workers, seed, hotFraction, zeroFraction } = parameters;
  const pages = Math.ceil((pageCount(parameters) - worker) / workers);
  const writtenPages = pages - Math.floor(pages * zeroFraction);
  return {
    worker,
    workers,
    pages,
    hotPages: Math.min(writtenPages, Math.ceil(pages * hotFraction)),
    writtenPages,
    hotThreshold: parameters.hotShare * TWO_32,
    discardThreshold: parameters.discardRate * TWO_32,
    permutation: createPermutation(pages, seed, worker),
  };
}

/** The global page number of a rank (0 <= rank < plan.pages). */
export function pageOfRank(plan: WorkerPlan, rank: number): number {
  return plan.worker + permute(plan.permutation, rank) * plan.workers;
}

/** Draws the worker's next operation from the generator at state[at, at + 4), which moves on. */
export function nextOperation(
  plan: WorkerPlan,
  state: Int32Array,
  at: number,
  operation: Operation,
): void {
  // Every operation draws three times, so that its place in the sequence is plain.
  const hotDraw = nextRandom(state, at);
  const rankDraw = nextRandom(state, at);
  const discardDraw = nextRandom(state, at);
  const hot = plan.hotPages > 0 && hotDraw < plan.hotThreshold;
  const rank = Math.floor((rankDraw * (hot ? plan.hotPages : plan.pages)) / TWO_32);
  operation.page = pageOfRank(plan, rank);
  if (rank >= plan.writtenPages) operation.kind = OPERATION_READ;
  else if (discardDraw < plan.discardThreshold) operation.kind = OPERATION_DISCARD;
  else operation.kind = OPERATION_WRITE;
}

/** The index of a page of the plan's worker among all its pages. */
export function indexOfPage(plan: WorkerPlan, page: number): number {
  return (page - plan.worker) / plan.workers;
}
