/** `dest --guest uffd:SOCKET`: fills the memory of a VMM that hands it over, while that runs. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import type { Peer } from "../channel/address.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import { VmmDoor } from "../threads/vmm-door.ts";
import { EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import type { Output } from "./common.ts";
import type { Interrupts } from "./interrupts.ts";
import { closeArrival, openArrival } from "./peers.ts";
import type { ArrivalOptions } from "./peers.ts";
import { DestRun, sayListening } from "./run-dest.ts";

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
  const guest = { kind: "uffd", handover: vmm.handover } as const;
  const run = DestRun.over({ ...job, guest, guestText: `VMM at ${socket}` }, opened);
  try {
    await run.receive();
    output.finish(run.report(null, undefined), run.observed);
    return EXIT.ok;
  } catch (error) {
    if (error instanceof Error) output.finish(run.report(null, error), run.observed);
    giveUp(vmm, output);
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  } finally {
    closeDescriptor(vmm.connection);
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

/** Its memory cannot be filled any more: what becomes of a VMM that waits for pages. */
function giveUp({ pid }: Vmm, output: Output): void {
  const what =
    "stands where it touches a page that is not there, for ever; it was never given zeros";
  output.warn("VMM_FROZEN", `The VMM (process ${pid}) is left as it is: it ${what}`);
}
