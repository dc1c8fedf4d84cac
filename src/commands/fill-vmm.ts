/** `dest --guest uffd:SOCKET`: fills the memory of a VMM that hands it over, while that runs. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import type { Peer } from "../channel/address.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import { VmmDoor } from "../threads/vmm-door.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import type { Output } from "./common.ts";
import type { Interrupts } from "./interrupts.ts";
import { closeArrival, openArrival } from "./peers.ts";
import type { ArrivalOptions, OpenedArrival } from "./peers.ts";
import { DestRun, sayListening } from "./run-dest.ts";

/** Where pages come from: a source that connects, or one in this process (own-source.ts). */
export interface PageFeed {
  /** Where it connects. */
  readonly peer: Peer;
  readonly arrival: OpenedArrival;
  /** Receives all of it. @throws why it did not become whole. */
  fill(run: DestRun): Promise<void>;
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
    fill: async (run) => {
      isReceived = true;
      await run.receive();
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
  output: Output;
  interrupts: Interrupts;
}

/** Fills a VMM's memory. Returns the exit code. @throws the failure, after saying what it costs. */
export async function fillVmm(job: FillJob): Promise<number> {
  const { socket, feed, output, interrupts } = job;
  let vmm: Vmm;
  try {
    const door = new VmmDoor(socket);
    try {
      sayOpen(job);
      vmm = await awaitVmm(door, job);
    } finally {
      door.close();
    }
  } catch (error) {
    await feed.close();
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  }
  sayHandover(vmm, output);
  const guest = { kind: "uffd", handover: vmm.handover } as const;
  const { peer, arrival } = feed;
  const run = DestRun.over({ ...job, peer, guest, guestText: `VMM at ${socket}` }, arrival);
  try {
    await feed.fill(run);
    output.finish(run.report(null, undefined), run.observed);
    return EXIT.ok;
  } catch (error) {
    if (error instanceof Error) output.finish(run.report(null, error), run.observed);
    giveUp(vmm, error, output);
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  } finally {
    closeDescriptor(vmm.connection);
    await feed.close();
  }
}

/** Says who is waited for. */
function sayOpen({ socket, feed, output }: FillJob): void {
  if (feed.arrival.source === undefined) sayListening(feed.arrival, output);
  else output.events.emit({ event: "listening", peer: `unix:${socket}` });
  log.info(`Waiting for a VMM on ${socket}`);
}

async function awaitVmm(door: VmmDoor, { linkTimeoutMs, interrupts }: FillJob): Promise<Vmm> {
  interrupts.onInterrupt(() => {
    door.stop();
    return true;
  });
  return await door.open(linkTimeoutMs);
}

function sayHandover({ handover, pid }: Vmm, output: Output): void {
  const bytes = handover.regions.reduce((sum, { length }) => sum + length, 0);
  const regions = handover.regions.length;
  output.events.emit({ event: "handover", pid, regions, bytes });
  const what = `${formatBytes(bytes)} in ${regions} region${regions === 1 ? "" : "s"}`;
  log.info(`The VMM (process ${pid}) has handed over ${what}`);
}

/** Its memory cannot be filled any more: what becomes of a VMM that waits for pages. */
function giveUp({ pid }: Vmm, error: unknown, output: Output): void {
  if (error instanceof PostcopyError && error.code === "VMM_GONE") return;
  const what =
    "stands where it touches a page that is not there, for ever; it was never given zeros";
  output.warn("VMM_FROZEN", `The VMM (process ${pid}) is left as it is: it ${what}`);
}
