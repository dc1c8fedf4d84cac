/** How what a move costs grows: with the guest's memory, with what it writes, with its threads. */
import { availableBytes } from "../ram/tables.ts";
import { log } from "../util/log.ts";
import type { Benchmark, Contender } from "./contest.ts";
import { OUR_PROGRAM, OURS } from "./names.ts";
import type { Figure } from "./result.ts";
import { moveStress } from "./stress-move.ts";
import type { StressMove } from "./stress-move.ts";

const GIB = 2 ** 30;
const LOOPBACK = "It moves from one process to another over TCP on the loopback";

const DOWNTIME: Figure = { id: "downtime", title: "downtime", unit: "ms", better: "less" };
const FAULT: Figure = { id: "fault", title: "remote fault, mean", unit: "us", better: "less" };
const FAULT_P99: Figure = { id: "fault-p99", title: "99th percentile", unit: "us", better: "less" };
const FAULTS: Figure = { id: "faults", title: "remote faults", unit: "count", better: "less" };
const SHARE: Figure = { id: "share", title: "missing pages asked for", unit: "%", better: "less" };
const OWED: Figure = { id: "owed", title: "owed at the switch", unit: "bytes", better: "less" };
const DRAINED: Figure = { id: "drained", title: "switch to last page", unit: "ms", better: "less" };
const RATE: Figure = { id: "rate", title: "postcopy's rate", unit: "bytes/s", better: "more" };

const PAGE = 4096;

/** What a move says of each figure. */
function valuesOf({ source, dest }: StressMove): Record<string, number> {
  const values: Record<string, number | null | undefined> = {
    [DOWNTIME.id]: dest.downtime?.ms,
    [FAULT.id]: nsToUs(dest.faults.latencyNs?.mean),
    [FAULT_P99.id]: nsToUs(dest.faults.latencyNs?.p99),
    [FAULTS.id]: dest.faults.remote,
    [SHARE.id]: (dest.faults.remoteShare ?? Number.NaN) * 100,
    [OWED.id]: source.pages.owed * PAGE,
    [DRAINED.id]: dest.times.postcopy,
    [RATE.id]: source.rates.postcopy,
  };
  const known = Object.entries(values).filter(([, value]) => Number.isFinite(value));
  return Object.fromEntries(known) as Record<string, number>;
}

function nsToUs(ns: number | undefined): number | undefined {
  return ns === undefined ? undefined : ns / 1000;
}

/** One point of an axis. */
function point(at: number, guest: string, flags: readonly string[]): Contender {
  return {
    name: OURS,
    program: OUR_PROGRAM,
    at,
    run: async () => ({ values: valuesOf(await moveStress(guest, flags)) }),
  };
}

/** Whether two processes can have the quarter of such a guest that is not zeros, and its tables. */
function hasRoom(gib: number): boolean {
  if (availableBytes() > gib * GIB * 0.7) return true;
  log.warn(`growth-memory is left out for ${gib} GiB: there is too little memory`);
  return false;
}

/** With the memory of a guest that writes as much whatever its size. */
export function growthOfMemory({ quick }: { quick: boolean }): Promise<Benchmark> {
  const sizes = (quick ? [1 / 64, 1 / 32] : [1 / 4, 1, 4, 16]).filter(hasRoom);
  return Promise.resolve({
    id: "growth-memory",
    title: "Growth with the guest's memory",
    setting:
      "A guest that dirties 200 MiB/s, 90 % of it in a tenth of its memory, a quarter of which is not " +
      `zeros. ${LOOPBACK}: two rounds of precopy, then post-copy.`,
    axis: { title: "memory", unit: "GiB" },
    figures: [DOWNTIME, OWED, FAULT, DRAINED],
    contenders: sizes.map((size) =>
      point(size, `stress:size=${size * GIB},rate=200MiB/s,zero=0.75,duration=100ms`, [
        ...["--switchover", "rounds=2"],
      ]),
    ),
    targets: [],
    notes: [
      "With the guest stopped, one look goes through the page tables of all of its memory: that grows " +
        "with it. All else depends on what is written between two looks.",
      "Larger guests have more that is owed at the switch: a round takes longer, and the guest writes " +
        "meanwhile.",
    ],
  });
}

/** With what the guest writes a second. */
export function growthOfDirtyRate({ quick }: { quick: boolean }): Promise<Benchmark> {
  const rates = quick ? [50, 100] : [0.25, 50, 100, 200, 400, 800];
  const size = quick ? "16MiB" : "1GiB";
  return Promise.resolve({
    id: "growth-rate",
    title: "Growth with what the guest writes",
    setting: `A guest of ${size} with two threads, 90 % of whose writes go to a tenth of its memory. ${LOOPBACK}: two rounds of precopy, then post-copy.`,
    axis: { title: "dirtied a second", unit: "MiB/s" },
    figures: [DOWNTIME, OWED, FAULTS, SHARE, FAULT, DRAINED],
    contenders: rates.map((mib) =>
      point(mib, `stress:size=${size},rate=${mib * 1024}KiB/s,duration=100ms`, [
        ...["--switchover", "rounds=2"],
      ]),
    ),
    targets: [],
    notes: ["What two threads and the migration can do on two cores ends at some of these rates."],
  });
}

/** With the threads that fault at once, all on one userfaultfd. */
export function growthOfWorkers({ quick }: { quick: boolean }): Promise<Benchmark> {
  const workers = quick ? [1, 2] : [1, 2, 4, 8];
  const size = quick ? "16MiB" : "512MiB";
  return Promise.resolve({
    id: "growth-workers",
    title: "Growth with the threads that fault",
    setting: `A guest of ${size} that writes as fast as its threads can, everywhere alike. ${LOOPBACK} by post-copy alone.`,
    axis: { title: "threads", unit: "count" },
    figures: [FAULT, FAULT_P99, FAULTS, SHARE, DRAINED, RATE],
    contenders: workers.map((count) =>
      point(
        count,
        `stress:size=${size},workers=${count},rate=unlimited,zero=0,hot=1,discard=0,duration=100ms`,
        ["--switchover", "now"],
      ),
    ),
    targets: [],
    notes: [
      "All faults go through one userfaultfd, one thread that reads it, and one urgent channel.",
      "The threads of the guest and those of the migration share the cores of the machine.",
    ],
  });
}
