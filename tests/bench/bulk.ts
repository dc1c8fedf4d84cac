/** How fast all of a guest's memory is pushed after the switch, and what that costs in CPU time. */
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import type { Target } from "../../src/bench/result.ts";
import { needCompiler, needUserfaultfd } from "../helpers/need.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { runLimit } from "./c-program.ts";
import { MemoryDirectory } from "./memory-directory.ts";
import {
  C,
  C_PROGRAM,
  CPU,
  OUR_PROGRAM,
  OURS,
  qemuProgramName,
  qemuToQemu,
  RATE,
} from "./names.ts";
import { isHere, peers } from "./needs.ts";
import { moveByOurs } from "./own-move.ts";
import { GIB, moveByQemu } from "./qemu-move.ts";
import type { GuestActivity, Move } from "./qemu-move.ts";

/** Memory that is moved by benchmarks of the bulk rate. */
export function bulkMemoryMib(quick: boolean): number {
  return quick ? 64 : 1024;
}

/** The guest stands still: all that is used is used by the migration. */
export async function bulkIdle({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isHere("bulk-idle", needUserfaultfd())) return undefined;
  const memoryMib = bulkMemoryMib(quick);
  const versions = peers("bulk-idle");
  const inC = isHere("bulk-idle in C", needCompiler()) ? [moveInC("bulk", memoryMib)] : [];
  return {
    ...describe("idle", memoryMib),
    figures: [RATE, CPU],
    contenders: [...contenders("idle", memoryMib, versions, runOf), ...inC],
    targets: [
      ...versions.flatMap((version): Target[] => [
        rateTarget(qemuToQemu(version), 1.2),
        { figure: CPU.id, of: OURS, to: qemuToQemu(version), bound: "at most", ratio: 0.75 },
      ]),
      ...(inC.length > 0 ? [rateTarget(C, 0.85)] : []),
    ],
    notes: [
      "CPU time is user and system time of both ends together, from the switch to postcopy until all " +
        "pages are there, divided by what was on the wire.",
      "QEMU's guest is stopped. Ours cannot be: it writes 64 KiB/s, and what that costs counts as ours.",
      "C is two processes that send and place pages that need not be looked at: no bitmap, no guest.",
      "QEMU has postcopy-preempt on.",
      "Ours is started from its sources, which is compiled while it runs, as the executable's code is.",
    ],
  };
}

/** The guest writes all the time, and waits for what it touches. */
export async function bulkRunning({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isHere("bulk-running", needUserfaultfd())) return undefined;
  const memoryMib = bulkMemoryMib(quick);
  const versions = peers("bulk-running");
  const rateOf = ({ bytesPerSecond }: Move): Run => ({ values: { [RATE.id]: bytesPerSecond } });
  return {
    ...describe("running", memoryMib),
    figures: [RATE],
    contenders: contenders("running", memoryMib, versions, rateOf),
    // The guests do not do the same, so there is nothing that their ratio should be.
    targets: [],
    notes: [
      "QEMU's guest, emulated, adds to a number in every page, upwards, as fast as it can; ours writes " +
        "200 MiB/s, most of it to a part of its memory. Both take CPU time from the migration, so what " +
        "that used is told of guests that stand still only (bulk-idle).",
      "QEMU has postcopy-preempt on.",
    ],
  };
}

function describe(
  activity: GuestActivity,
  memoryMib: number,
): Pick<Benchmark, "id" | "title" | "setting" | "axis"> {
  return {
    id: `bulk-${activity}`,
    title: `Bulk: pushing all of a guest that ${activity === "idle" ? "stands still" : "runs"}`,
    setting:
      `${memoryMib} MiB, no page of which is zeros, are moved by post-copy alone between two ` +
      "processes over TCP on the loopback.",
    axis: null,
  };
}

function rateTarget(to: string, ratio: number): Target {
  return { figure: RATE.id, of: OURS, to, bound: "at least", ratio };
}

/** What a move comes to, in both figures. */
export function runOf({ bytesPerSecond, cpuSecondsPerGib }: Move): Run {
  return { values: { [RATE.id]: bytesPerSecond, [CPU.id]: cpuSecondsPerGib } };
}

function contenders(
  activity: GuestActivity,
  memoryMib: number,
  versions: readonly QemuVersion[],
  toRun: (move: Move) => Run,
): Contender[] {
  const ours = {
    name: OURS,
    program: OUR_PROGRAM,
    run: async () => toRun(await moveByOurs(memoryMib, activity)),
  };
  return [ours, ...versions.map((version) => qemuContender(version, activity, memoryMib, toRun))];
}

/** A QEMU that moves its guest to another of the same version. */
export function qemuContender(
  version: QemuVersion,
  activity: GuestActivity,
  memoryMib: number,
  toRun: (move: Move) => Run = runOf,
): Contender {
  return {
    name: qemuToQemu(version),
    program: qemuProgramName(version),
    run: async () => toRun(await moveByQemu(version, memoryMib, activity)),
  };
}

/** What C says of a move: of both ends together. */
interface MoveOfLimit {
  bytes: number;
  seconds: number;
  cpuSeconds: number;
}

/** The same job in plain C, in one of its modes that move all of a memory. */
export function moveInC(mode: "bulk" | "capture" | "restore", memoryMib: number): Contender {
  return {
    name: C,
    program: C_PROGRAM,
    run: async () => {
      // The modes that need no file make none.
      await using directory = new MemoryDirectory();
      const file = mode === "bulk" ? [] : [directory.file("guest")];
      const words = [mode, String(memoryMib), ...file];
      const { bytes, seconds, cpuSeconds } = await runLimit<MoveOfLimit>(...words);
      return runOf({
        bytesPerSecond: bytes / seconds,
        cpuSecondsPerGib: (cpuSeconds / bytes) * GIB,
      });
    },
  };
}
