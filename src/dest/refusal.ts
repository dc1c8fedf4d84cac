/**
 * Who runs the guest is decided once, by one atomic exchange: either it starts here, or it never
 * will and the source may let it run on there. Any thread may refuse it (the operator gave up, a
 * page never came while the device state was still loading); the thread that loads it decides the
 * other way as it starts it.
 */
import type { ReturnPath } from "./return-path.ts";
import { SHUT_STATUS } from "../stream/return-path.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** Values of WORD.fate. */
export const FATE = {
  open: 0,
  /** It runs here, or is about to. */
  runs: 1,
  /** It will not run here. */
  refused: 2,
  /** The same, and the source has been told. */
  told: 3,
} as const;

/** Decides that the guest runs here; false when it was refused before. */
export function decideToRun(shared: DestShared): boolean {
  return Atomics.compareExchange(shared.control, WORD.fate, FATE.open, FATE.runs) === FATE.open;
}

/** Whether it was decided that the guest runs here. */
export function guestRuns(control: Int32Array<SharedArrayBuffer>): boolean {
  return Atomics.load(control, WORD.fate) === FATE.runs;
}

/** Decides that the guest will not run here; false when it runs here already. */
export function refuseGuest(shared: DestShared): boolean {
  Atomics.compareExchange(shared.control, WORD.fate, FATE.open, FATE.refused);
  return !guestRuns(shared.control);
}

/** Whether the source has opened the return path: it can be told something. */
export function returnPathIsOpen({ control }: DestShared): boolean {
  return Atomics.load(control, WORD.returnPathOpen) === 1;
}

/**
 * Tells the source that the guest was refused (SHUT with a status), so that it may run on there.
 * Once it runs here that would be a lie with two guests; then the connection is just cut.
 */
export function tellRefusal(shared: DestShared, returnPath: Pick<ReturnPath, "send">): void {
  const { control } = shared;
  if (!returnPathIsOpen(shared)) return;
  if (Atomics.compareExchange(control, WORD.fate, FATE.refused, FATE.told) !== FATE.refused) return;
  try {
    returnPath.send({ kind: "shut", status: SHUT_STATUS.refused });
  } catch {
    // The link is gone: the source notices that, but not what was decided here.
    Atomics.store(control, WORD.fate, FATE.refused);
  }
}

/**
 * Tells a source that it was turned away before LISTEN, with nothing decided: it has its guest, and need
 * not come back.
 */
export function tellTurnedAway(shared: DestShared, returnPath: Pick<ReturnPath, "send">): void {
  if (Atomics.load(shared.control, WORD.returnPathOpen) === 0) return;
  try {
    returnPath.send({ kind: "shut", status: SHUT_STATUS.refused });
  } catch {
    // It was lost, which is why it was turned away.
  }
}
