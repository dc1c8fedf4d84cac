/**
 * The end of a migration: the guest starts here, is whole here, and the source is told of both. Once it
 * runs, or is durable, nothing that follows may lose it again.
 */
import { StoppedError } from "../channel/channel.ts";
import type { RamBlock } from "../ram/block.ts";
import { KEPT_REQUESTS, PONG_RUNNING } from "../stream/hello.ts";
import { errorChain } from "../util/errors.ts";
import { setPhase } from "./context.ts";
import type { IncomingContext } from "./context.ts";
import type { IncomingMemory } from "./incoming-memory.ts";
import { decideToRun, returnPathIsOpen } from "./refusal.ts";
import type { SourceHello } from "./source-hello.ts";

/** How the guest came here. */
export interface IncomingOutcome {
  completedIn: "precopy" | "postcopy";
}

/** Starts the guest. @throws StoppedError when it was refused before. */
export function startGuest(context: IncomingContext, source: SourceHello): void {
  const { guest, shared, returnPath } = context;
  if (guest.devices.kind === "modelled") guest.devices.complete();
  if (!decideToRun(shared)) throw new StoppedError();
  guest.run();
  context.emit({ kind: "running" });
  if (!source.awaitsRunning) return;
  orWarn(context, "The source was not told that the guest runs", () => {
    returnPath.send({ kind: "pong", value: PONG_RUNNING });
  });
}

/** What `finishGuest` is to know. */
export interface Finish extends IncomingOutcome {
  memory: IncomingMemory;
  source: SourceHello;
  /** DestGuest's `finish`. */
  commit: () => void;
}

/** Every page is in place: finishes the guest, and tells the source that it is whole. */
export function finishGuest(context: IncomingContext, finish: Finish): void {
  const { guest, shared } = context;
  setPhase(context, "drained");
  guest.finish(finish.commit);
  orWarn(context, "The memory is not locked", () => finish.memory.restoreLock());
  if (returnPathIsOpen(shared)) tellWhole(context, finish);
  setPhase(context, "completed");
}

function tellWhole(
  context: IncomingContext,
  { completedIn, memory, source }: Pick<Finish, "completedIn" | "memory" | "source">,
): void {
  const { guest, returnPath } = context;
  const isKept = guest.devices.kind === "opaque";
  const then = isKept && completedIn === "precopy" ? ", and lets it go on" : "";
  orWarn(context, `The source was not told that the guest is whole here${then}`, () => {
    const [block] = memory.blocks;
    if (isKept && completedIn === "postcopy" && !source.isOurs) sayKept(returnPath, block);
    returnPath.send({ kind: "shut", status: 0 });
  });
}

/**
 * Asks for a page that is here, so often that it says to a QEMU that the guest is kept. The source waits
 * for what comes behind that, so they go out together.
 */
function sayKept(returnPath: IncomingContext["returnPath"], block: RamBlock | undefined): void {
  if (block === undefined) return;
  for (let request = 0; request < KEPT_REQUESTS; request++) returnPath.addRequest(block, 0);
  returnPath.flushRequests();
}

/** Does what the guest does not depend on: its failure is worth a warning, not the guest. */
function orWarn({ emit }: IncomingContext, failure: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    const why = error instanceof Error ? errorChain(error) : String(error);
    emit({ kind: "warning", message: `${failure}: ${why}` });
  }
}
