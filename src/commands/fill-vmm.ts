/** `dest --guest uffd:SOCKET`: fills the memory of a VMM that hands it over, while that runs. */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { formatPeer } from "../channel/address.ts";
import { enabledFeatures } from "../../syscalls/userfaultfd.ts";
import type { Peer } from "../channel/address.ts";
import type { GuestMemory } from "../dest/context.ts";
import { VMM_GONE, VmmGoneError } from "../dest/place-failure.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import type { KeeperWord } from "../keeper/open.ts";
import { ProcessWatch } from "../threads/process-watch.ts";
import { VmmDoor } from "../threads/vmm-door.ts";
import { errorChain, EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import { checkKeeper, keeperText, KeptVmm } from "./kept-vmm.ts";
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
  /** Who keeps its userfaultfd in case that this process is killed. */
  keeper: KeeperWord | undefined;
  /** A process that was killed had the VMM before: the keeper has it. */
  resume: boolean;
  output: Output;
  interrupts: Interrupts;
}

/** A VMM, and what is kept of it. */
interface Taken {
  vmm: Vmm;
  kept: KeptVmm | undefined;
}

/** Fills a VMM's memory. Returns the exit code. @throws the failure, after saying what it costs. */
export async function fillVmm(job: FillJob): Promise<number> {
  const { peer, security, output, interrupts } = job;
  // Both are open before a VMM comes: from then on it depends on us.
  const opened = await openArrival(peer, security, (message) =>
    output.warn("DEST_WARNING", message),
  );
  let taken: Taken;
  try {
    taken = await (job.resume ? takeBack(job, opened) : takeOver(job, opened));
  } catch (error) {
    await closeArrival(opened);
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  }
  try {
    return await fill(job, taken, opened);
  } finally {
    if (taken.vmm.connection >= 0) closeDescriptor(taken.vmm.connection);
  }
}

/** Waits for a VMM that hands over. */
async function takeOver(job: FillJob, opened: OpenedArrival): Promise<Taken> {
  const { socket, output, keeper } = job;
  if (keeper !== undefined) checkKeeper(keeper);
  const door = new VmmDoor(socket);
  try {
    sayListening(opened, output);
    log.info(`Waiting for a VMM on ${socket}`);
    return { vmm: await awaitVmm(door, job), kept: undefined };
  } finally {
    door.close();
  }
}

/** Takes the VMM of a process that was killed. */
async function takeBack({ keeper, output }: FillJob, opened: OpenedArrival): Promise<Taken> {
  if (keeper === undefined) throw new Error("nobody is known to have kept it");
  const taken = await KeptVmm.takeBack(keeper);
  sayListening(opened, output);
  return taken;
}

/** Fills the memory of a VMM that has handed it over, or decides what becomes of the VMM. */
async function fill(job: FillJob, taken: Taken, opened: OpenedArrival): Promise<number> {
  const { output, interrupts, onFailure, keeper } = job;
  const { vmm } = taken;
  let run: DestRun | undefined;
  const successor = keeper === undefined ? undefined : successorText(job, keeper);
  const memory = (): GuestMemory | undefined => run?.memory;
  const fate = new VmmFate({ vmm, onFailure, successor, output, memory });
  let watch: ProcessWatch | undefined;
  let { kept } = taken;
  try {
    if (keeper !== undefined) kept ??= await KeptVmm.keep(keeper, vmm);
    sayHandover(vmm, job.resume ? "was taken back with" : "has handed over", output);
    run = openRun(job, vmm, kept, opened);
    if (vmm.processFd >= 0) watch = new ProcessWatch(vmm.processFd);
    void watch?.ended.then(() => run?.giveUp(new VmmGoneError()));
    await run.receive();
    fate.settle();
    kept?.release(output);
    output.finish(run.report(null, undefined), run.observed);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    // Whoever is killed has it worse than who waits for a report.
    if ("code" in error && error.code === VMM_GONE) fate.end();
    else fate.fail(errorChain(error));
    if (fate.isOver) kept?.forget();
    if (run !== undefined) output.finish(run.report(null, error), run.observed);
    else await closeArrival(opened);
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  } finally {
    await watch?.end();
    fate.close();
  }
}

function openRun(
  job: FillJob,
  { handover }: Vmm,
  kept: KeptVmm | undefined,
  opened: OpenedArrival,
): DestRun {
  const state = kept?.state;
  const takenOver = state?.isTakenOver ?? false;
  const guest = { kind: "uffd", handover, keptFd: state?.fd, takenOver } as const;
  return DestRun.over({ ...job, guest, guestText: `VMM at ${job.socket}` }, opened);
}

/** The command that goes on where this process ends. */
function successorText({ socket, peer }: FillJob, keeper: KeeperWord): string {
  const words = ["dest", "--guest", `uffd:${socket}`, "--listen", formatPeer(peer)];
  return ["postcopy", ...words, "--keep-fd", keeperText(keeper), "--resume"].join(" ");
}

async function awaitVmm(door: VmmDoor, { linkTimeoutMs, interrupts }: FillJob): Promise<Vmm> {
  interrupts.onInterrupt(() => {
    door.stop();
    return true;
  });
  return await door.open(linkTimeoutMs);
}

function sayHandover({ handover, pid }: Vmm, how: string, output: Output): void {
  const bytes = handover.regions.reduce((sum, { length }) => sum + length, 0);
  const regions = handover.regions.length;
  output.events.emit({ event: "handover", pid, regions, bytes });
  const what = `${formatBytes(bytes)} in ${regions} region${regions === 1 ? "" : "s"}`;
  log.info(`The VMM (process ${pid}) ${how} ${what}`);
  const features = enabledFeatures(handover.userfaultFd) ?? 0;
  if ((features & UFFD.UFFD_FEATURE_EVENT_REMOVE) !== 0) return;
  const message =
    "The VMM has not asked for UFFD_FEATURE_EVENT_REMOVE: its guest must give no memory back " +
    "(balloon, free page reporting) until all of it is there";
  output.warn("VMM_UNHEARD", message);
}
