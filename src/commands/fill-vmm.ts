/** `dest --guest uffd:SOCKET`: fills the memory of a VMM that hands it over, while that runs. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import type { Peer } from "../channel/address.ts";
import type { GuestMemory } from "../dest/context.ts";
import { VMM_GONE, VmmGoneError } from "../dest/place-failure.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import type { KeeperWord } from "../keeper/open.ts";
import { ProcessWatch } from "../threads/process-watch.ts";
import { VmmDoor } from "../threads/vmm-door.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import { errorChain, EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { checkKeeper, KeptVmm } from "./kept-vmm.ts";
import type { Output } from "./common.ts";
import { KeeperWatch } from "./keeper-watch.ts";
import type { Interrupts } from "./interrupts.ts";
import { closeArrival, openArrival } from "./peers.ts";
import type { ArrivalOptions, OpenedArrival } from "./peers.ts";
import { sayListening } from "./dest-job.ts";
import type { DestJob } from "./dest-job.ts";
import { DestRun } from "./run-dest.ts";
import { VmmFate } from "./vmm-fate.ts";
import type { OnFailure } from "./vmm-fate.ts";
import { sayHandover } from "./vmm-handover.ts";

/** Where pages come from: a source that connects, or one in this process (own-source.ts). */
export interface PageFeed {
  /** Where it connects. */
  readonly peer: Peer;
  readonly arrival: OpenedArrival;
  /** Which guest the pages are of; undefined where a source will say it. */
  readonly identity: GuestIdentity | undefined;
  /**
   * Receives all of it; `resumes`: of which another process has received a part. `giveUp` is as for
   * DestRun.receive, for a source that would come back.
   * @throws why it did not become whole.
   */
  fill(run: DestRun, resumes: boolean, giveUp: (why: Error) => boolean): Promise<void>;
  /** After `fill`, or in its place. */
  close(): Promise<void>;
}

/** A source that will connect at `peer`. */
export async function openFeed(
  peer: Peer,
  security: ArrivalOptions,
  output: Output,
): Promise<PageFeed> {
  const warn = (message: string): void => output.warn("DEST_WARNING", message);
  const arrival = await openArrival(peer, security, warn);
  let isReceived = false;
  return {
    peer,
    arrival,
    identity: undefined,
    fill: async (run, _resumes, giveUp) => {
      isReceived = true;
      await run.receive(giveUp);
    },
    close: async () => {
      // A run closes what it was given.
      if (!isReceived) await closeArrival(arrival);
    },
  };
}

/** What fills whose memory from where. */
export interface FillJob {
  /** Where the VMM hands over. */
  socket: string;
  /** Where its pages come from. */
  feed: PageFeed;
  security: ArrivalOptions;
  lockMemory: boolean;
  recoverTimeoutMs: number;
  linkTimeoutMs: number;
  /** Connections on which the push may come. */
  channels: number;
  /** What becomes of a VMM whose memory cannot be filled. */
  onFailure: OnFailure;
  /** Who keeps its userfaultfd in case that this process is killed. */
  keeper: KeeperWord | undefined;
  /** How long one is waited for that is just being started. */
  keeperPatienceMs: number;
  /** A process that was killed had the VMM before: the keeper has it. */
  resume: boolean;
  /** The command that goes on where this process ends; undefined if none can. */
  successor: string | undefined;
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
  const { feed, interrupts } = job;
  let taken: Taken;
  try {
    taken = await (job.resume ? takeBack(job) : takeOver(job));
  } catch (error) {
    await feed.close();
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  }
  try {
    return await fill(job, taken);
  } finally {
    if (taken.vmm.connection >= 0) closeDescriptor(taken.vmm.connection);
    await feed.close();
  }
}

/** Waits for a VMM that hands over. */
async function takeOver(job: FillJob): Promise<Taken> {
  const { socket, keeper, interrupts } = job;
  if (keeper !== undefined) await checkKeeper(keeper, job.keeperPatienceMs);
  const door = new VmmDoor(socket);
  try {
    sayOpen(job);
    log.info(`Waiting for a VMM on ${socket}`);
    return { vmm: await awaitVmm(door, job), kept: undefined };
  } finally {
    // What stops the door is closed with it.
    interrupts.exitOnInterrupt();
    door.close();
  }
}

/** Takes the VMM of a process that was killed. */
async function takeBack(job: FillJob): Promise<Taken> {
  if (job.keeper === undefined) throw new Error("nobody is known to have kept it");
  const taken = await KeptVmm.takeBack(job.keeper, job.feed.identity);
  const { feed, output } = job;
  if (feed.arrival.source === undefined) sayListening(feed.arrival, output);
  return taken;
}

/** Fills the memory of a VMM that has handed it over, or decides what becomes of the VMM. */
async function fill(job: FillJob, taken: Taken): Promise<number> {
  const { feed, output, interrupts, onFailure, keeper, successor } = job;
  const { vmm } = taken;
  let run: DestRun | undefined;
  const memory = (): GuestMemory | undefined => run?.memory;
  let { kept } = taken;
  const isKept = (): boolean => kept?.isHeld ?? false;
  const fate = new VmmFate({ vmm, onFailure, successor, isKept, output, memory });
  let watch: ProcessWatch | undefined;
  let keeperWatch: KeeperWatch | undefined;
  try {
    if (keeper !== undefined) kept ??= await KeptVmm.keep(keeper, vmm);
    if (kept !== undefined) keeperWatch = new KeeperWatch(kept, vmm.processFd, output);
    sayHandover(vmm, job.resume ? "was taken back with" : "has handed over", output);
    const takenOver = kept?.state.isTakenOver ?? false;
    run = openRun({ ...job, whole: () => fate.settle() }, vmm, kept, takenOver);
    if (vmm.processFd >= 0) watch = new ProcessWatch(vmm.processFd);
    void watch?.ended.then(
      () => run?.giveUp(new VmmGoneError()),
      (cause: unknown) => run?.giveUp(new Error("The VMM cannot be watched any more", { cause })),
    );
    await feed.fill(run, takenOver, (why) => {
      decide(fate, why);
      return fate.isOver;
    });
    await keeperWatch?.end();
    await kept?.release(output);
    output.finish(run.report(null, undefined), run.observed);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    interrupts.settleFailure(error);
    // Whoever is killed has it worse than who waits for a report.
    decide(fate, error);
    if (run !== undefined) output.finish(run.report(null, error), run.observed);
    if (fate.isOver) await kept?.forget();
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  } finally {
    await Promise.all([watch?.end(), keeperWatch?.end()]);
    kept?.close();
    fate.close();
  }
}

/** What becomes of a VMM whose memory did not become whole; it is decided once. */
function decide(fate: VmmFate, why: Error): void {
  if ("code" in why && why.code === VMM_GONE) fate.end();
  else fate.fail(errorChain(why));
}

function openRun(
  job: FillJob & Pick<DestJob, "whole">,
  { handover }: Vmm,
  kept: KeptVmm | undefined,
  takenOver: boolean,
): DestRun {
  const { peer, arrival } = job.feed;
  const guest = { kind: "uffd", handover, keptFd: kept?.state.fd, takenOver } as const;
  return DestRun.over({ ...job, peer, guest, guestText: `VMM at ${job.socket}` }, arrival);
}

/** Says who is waited for. */
function sayOpen({ socket, feed, output }: FillJob): void {
  if (feed.arrival.source === undefined) sayListening(feed.arrival, output);
  else output.events.emit({ event: "listening", peer: `unix:${socket}` });
}

async function awaitVmm(door: VmmDoor, { linkTimeoutMs, interrupts }: FillJob): Promise<Vmm> {
  interrupts.onInterrupt(() => {
    door.stop();
    return true;
  });
  return await door.open(linkTimeoutMs);
}
