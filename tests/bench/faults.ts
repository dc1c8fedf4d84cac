/**
 * Remote faults beside QEMU's own: our two ends, a QEMU 11.1 with itself, and our source with that
 * QEMU. All send requested pages apart from the push (`postcopy-preempt`).
 */
import { rmSync } from "node:fs";
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import {
  FAULT_FIGURES,
  faultsMemoryMib,
  faultsRun,
  limitFlags,
  oursToOurs,
  PUSH_AXIS,
  PUSH_LIMITS,
} from "../../src/bench/faults.ts";
import type { Target } from "../../src/bench/result.ts";
import { startSource } from "../helpers/migration.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";
import { captureQemu, enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { Qemu, QemuProgram } from "../helpers/qemu.ts";
import { readLatency, startRandomGuest } from "../helpers/random-guest.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { C_NOTE, parkedInC } from "./faults-in-c.ts";
import { OUR_PROGRAM, OURS, oursToQemu, qemuProgramName, qemuToQemu } from "./names.ts";
import { isHere } from "./needs.ts";
import { postcopyBegins } from "./qemu-move.ts";

const MB = 1e6;
/** Slow enough that next to nothing goes before the switch to postcopy. */
const PRECOPY_BYTES_PER_SECOND = 4096;
const RUN_LIMIT_MS = 120_000;
const QEMU = "11.1";

/** Where the two ends of a move run: on this host, or on two with a link between them. */
export interface Ends {
  source: readonly string[];
  destination: readonly string[];
  /** Where the destination listens. */
  address: string;
  /** What our ends are told of a link that is not the loopback. */
  flags: readonly string[];
}

/** What is moved, and how. */
export interface Setting {
  memoryMib: number;
  /** Limit of the push in MB/s, 0 none. */
  limit: number;
  ends: Ends;
  /** The guest's memory lies in huge pages of 2 MiB. */
  hugePages: boolean;
}

export const LOOPBACK: Ends = { source: [], destination: [], address: "127.0.0.1", flags: [] };

function qemuAt(enter: readonly string[]): QemuProgram {
  const { command } = qemuProgram(QEMU);
  return { command: [...enter, ...command] };
}

/** A QEMU that waits for the guest, and measures how long it waits for its pages. */
async function startDestination({ memoryMib, hugePages, ends }: Setting): Promise<Qemu> {
  const program = qemuAt(ends.destination);
  const qemu = await startRandomGuest({ program, memoryMib, hugePages, incoming: "defer" });
  await enablePostcopy(qemu, { "postcopy-preempt": true, "postcopy-blocktime": true });
  return qemu;
}

/** A QEMU with itself. */
export async function faultsOfQemu(setting: Setting): Promise<Run> {
  const { memoryMib, hugePages, limit, ends } = setting;
  const program = qemuAt(ends.source);
  await using source = await startRandomGuest({ program, memoryMib, hugePages });
  await using destination = await startDestination(setting);
  await enablePostcopy(source, { "postcopy-preempt": true });
  await source.waitForRounds(1);
  const port = await destination.listen(ends.address);
  await source.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": PRECOPY_BYTES_PER_SECOND,
    "max-postcopy-bandwidth": limit * MB,
  });
  await source.qmp.execute("migrate", { uri: `tcp:${ends.address}:${port}` });
  await source.qmp.execute("migrate-start-postcopy");
  const began = await postcopyBegins(source);
  const ended = await source.waitForMigration("completed", { limitMs: RUN_LIMIT_MS });
  await destination.waitForMigration("completed");
  const { ram } = await source.qmp.execute<{ ram: { "postcopy-bytes": number } }>("query-migrate");
  const bulk = (ram["postcopy-bytes"] / (ended.timeMs - began.timeMs)) * 1000;
  const { meanNs, buckets } = await readLatency(destination);
  return faultsRun(buckets, meanNs, bulk);
}

/** Our source, with a kept guest, and a QEMU. */
export async function faultsIntoQemu(snapshot: string, setting: Setting): Promise<Run> {
  const { limit, ends } = setting;
  await using destination = await startDestination(setting);
  const to = `tcp:${ends.address}:${await destination.listen(ends.address)}`;
  const kept = ["--preempt", "--no-record", "--no-replay"];
  const flags = [...kept, ...ends.flags, ...limitFlags(limit)];
  const guest = `snapshot:${snapshot}`;
  await using source = startSource({ to, guest, flags, before: ends.source });
  const { exitCode, stderr, report } = await source.end();
  if (exitCode !== 0 || report.rates.postcopy === null) throw new Error(stderr);
  await destination.waitForMigration("completed");
  const { meanNs, buckets } = await readLatency(destination);
  return faultsRun(buckets, meanNs, report.rates.postcopy);
}

/** The same guest, kept in a directory that goes with this process. */
export async function keepGuest(memoryMib: number, hugePages = false): Promise<string> {
  const directory = new TemporaryDirectory("faults");
  process.once("exit", () => rmSync(directory.path, { recursive: true, force: true }));
  const program = qemuProgram(QEMU);
  await using source = await startRandomGuest({ program, memoryMib, hugePages });
  await source.waitForRounds(1);
  await enablePostcopy(source);
  const snapshot = directory.file("guest");
  await captureQemu(source, snapshot);
  return snapshot;
}

/** Whether a comparison with a QEMU 11.1 can be made here; says what is missing. */
export function hasQemu(benchmark: string, ...others: readonly Need[]): boolean {
  return isHere(benchmark, needQemuVersion(QEMU), needUserfaultfd(), ...others);
}

/** QEMU with itself and our source with QEMU, at each limit of the push. */
export async function withQemu(
  memoryMib: number,
  limits: readonly number[],
  ends: Ends = LOOPBACK,
): Promise<Contender[]> {
  const snapshot = await keepGuest(memoryMib);
  const setting = (limit: number): Setting => ({ memoryMib, limit, ends, hugePages: false });
  return limits.flatMap((limit): Contender[] => [
    {
      name: qemuToQemu(QEMU),
      program: qemuProgramName(QEMU),
      at: limit,
      run: () => faultsOfQemu(setting(limit)),
    },
    {
      name: oursToQemu(QEMU),
      program: `${OUR_PROGRAM}, ${qemuProgramName(QEMU)}`,
      at: limit,
      run: () => faultsIntoQemu(snapshot, setting(limit)),
    },
  ]);
}

/** What was aimed at, of both of our contenders. */
export const FAULT_TARGETS: Target[] = [OURS, oursToQemu(QEMU)].flatMap((of) =>
  Object.entries({ mean: 0.5, p50: 0.7, p99: 0.5 }).map(([figure, ratio]) => ({
    ...{ figure, of, to: qemuToQemu(QEMU), bound: "at most" as const, ratio },
  })),
);

/** What has to be known of the figures of both programs. */
export const FAULT_NOTES = [
  "QEMU: postcopy-latency and postcopy-latency-dist, from the fault thread's read of the fault to " +
    "the page placed. Ours: from the poll that found the fault, before it is read, to the same.",
  "QEMU has postcopy-preempt on at both ends.",
  "Both count while they are measured: QEMU has postcopy-blocktime on at the destination.",
  "Percentiles are interpolated from powers of two of µs, as QEMU tells no more.",
];

/** The comparison; undefined where there is no QEMU 11.1. */
export async function faults({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!hasQemu("faults")) return undefined;
  const memoryMib = faultsMemoryMib(quick);
  return {
    id: "faults",
    title: "Remote faults",
    setting:
      `A guest of ${memoryMib} MiB, none of it zero, moves by post-copy alone over loopback tcp, ` +
      "and writes to pages at random as fast as it gets them: under QEMU a program without an " +
      "operating system, emulated (TCG), with one processor; between our own ends the stress guest.",
    axis: PUSH_AXIS,
    figures: FAULT_FIGURES,
    contenders: [
      ...(await withQemu(memoryMib, PUSH_LIMITS)),
      ...oursToOurs(memoryMib),
      ...parkedInC(memoryMib, PUSH_LIMITS),
    ],
    targets: FAULT_TARGETS,
    notes: [...FAULT_NOTES, C_NOTE],
  };
}
