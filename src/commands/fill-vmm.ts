/** `dest --guest uffd:SOCKET`: fills the memory of a VMM that hands it over, while that runs. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import type { Peer } from "../channel/address.ts";
import type { GuestMemory } from "../dest/context.ts";
import { VMM_GONE, VmmGoneError } from "../dest/place-failure.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import { ProcessWatch } from "../threads/process-watch.ts";
import { VmmDoor } from "../threads/vmm-door.ts";
import { errorChain, EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import type { Output } from "./common.ts";
import type { Interrupts } from "./interrupts.ts";
import { closeArrival, openArrival } from "./peers.ts";
import type { ArrivalOptions, OpenedArrival } from "./peers.ts";
import { DestRun, sayListening } from "./run-dest.ts";
import { VmmFate } from "./vmm-fate.ts";
import type { OnFailure } from "./vmm-fate.ts";

/** What fills whose memory from where. */
export interface FillJob {
  /** Where the VMM hands over. */
  socket: string;
  /** Where the source comes. */
  peer: Peer;
  security: ArrivalOptions;
  lockMemory: boolean;
  recoverTimeoutMs: number;
  linkTimeoutMs: number;
  /** What becomes of a VMM whose memory cannot be filled. */
  onFailure: OnFailure;
  output: Output;
  interrupts: Interrupts;
}

/** Fills a VMM's memory. Returns the exit code. @throws the failure, after saying what it costs. */
export async function fillVmm(job: FillJob): Promise<number> {
  const { socket, peer, security, output, interrupts } = job;
  // Both are open before a VMM comes: from then on it depends on us.
  const opened = await openArrival(peer, security, (message) =>
    output.warn("DEST_WARNING", message),
  );
  let vmm: Vmm;
  try {
    const door = new VmmDoor(socket);
    try {
      sayListening(opened, output);
      log.info(`Waiting for a VMM on ${socket}`);
      vmm = await awaitVmm(door, job);
    } finally {
      door.close();
    }
  } catch (error) {
    await closeArrival(opened);
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  }
  try {
    return await fill(job, vmm, opened);
  } finally {
    closeDescriptor(vmm.connection);
  }
}

/** Fills the memory of a VMM that has handed it over, or decides what becomes of the VMM. */
async function fill(job: FillJob, vmm: Vmm, opened: OpenedArrival): Promise<number> {
  const { socket, output, interrupts, onFailure } = job;
  const guest = { kind: "uffd", handover: vmm.handover } as const;
  const run = DestRun.over({ ...job, guest, guestText: `VMM at ${socket}` }, opened);
  const memory = (): GuestMemory | undefined => run.memory;
  const fate = new VmmFate({ vmm, onFailure, successor: undefined, output, memory });
  const watch = vmm.processFd < 0 ? undefined : new ProcessWatch(vmm.processFd);
  void watch?.ended.then(() => run.giveUp(new VmmGoneError()));
  try {
    await run.receive();
    fate.settle();
    output.finish(run.report(null, undefined), run.observed);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    // Whoever is killed has it worse than who waits for a report.
    if ("code" in error && error.code === VMM_GONE) fate.settle();
    else fate.fail(errorChain(error));
    output.finish(run.report(null, error), run.observed);
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  } finally {
    await watch?.end();
    fate.close();
  }
}

async function awaitVmm(
  door: VmmDoor,
  { linkTimeoutMs, output, interrupts }: FillJob,
): Promise<Vmm> {
  interrupts.onInterrupt(() => {
    door.stop();
    return true;
  });
  const vmm = await door.open(linkTimeoutMs);
  const { handover, pid } = vmm;
  const bytes = handover.regions.reduce((sum, { length }) => sum + length, 0);
  const regions = handover.regions.length;
  output.events.emit({ event: "handover", pid, regions, bytes });
  const what = `${formatBytes(bytes)} in ${regions} region${regions === 1 ? "" : "s"}`;
  log.info(`The VMM (process ${pid}) has handed over ${what}`);
  return vmm;
}
