/**
 * The point of no return at the source, decided once by one atomic exchange: either the guest stays
 * (the operator cancelled in time), or what may start it at the destination is about to be sent. The
 * thread that sends decides the one way, main on Ctrl-C the other; so no guest is on neither side.
 */
import { StoppedError } from "../channel/channel.ts";
import { WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** Values of WORD.commitment. */
const COMMITMENT = { open: 0, cancelled: 1, committed: 2 } as const;

function decide(shared: SourceShared, to: number): boolean {
  const { open } = COMMITMENT;
  return Atomics.compareExchange(shared.control, WORD.commitment, open, to) === open;
}

/**
 * Called right before the last byte of the package is sent, or EOF in precopy.
 * @throws StoppedError when the operator cancelled.
 */
export function commit(shared: SourceShared): void {
  if (!decide(shared, COMMITMENT.committed)) throw new StoppedError();
}

/** For a recovery: the point was passed before, by this process or by another. */
export function committedBefore(shared: SourceShared): void {
  Atomics.store(shared.control, WORD.commitment, COMMITMENT.committed);
}

/** Decides that the guest stays; false when it is too late for that. */
export function cancel(shared: SourceShared): boolean {
  decide(shared, COMMITMENT.cancelled);
  return Atomics.load(shared.control, WORD.commitment) === COMMITMENT.cancelled;
}
