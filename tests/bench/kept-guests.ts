/** How fast a QEMU's guest is taken into a snapshot, and sent from one into a QEMU again. */
import type { Benchmark, Contender } from "../../src/bench/contest.ts";
import type { Target } from "../../src/bench/result.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { needCompiler, needUserfaultfd } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";
import { collectRun, destReportOf, sourceReportOf } from "../helpers/postcopy-run.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { CpuMeter } from "./cpu-meter.ts";
import { bulkMemoryMib, moveInC, qemuContender, runOf } from "./bulk.ts";
import { peerOf, startOurDest } from "./own-move.ts";
import { CPU, OUR_PROGRAM, oursToQemu, qemuToOurs, qemuToQemu, RATE } from "./names.ts";
import { MemoryDirectory } from "./memory-directory.ts";
import { isHere, peers } from "./needs.ts";
import { GIB, observeSource, sendByPostcopy, startDestination, startSource } from "./qemu-move.ts";
import type { Move } from "./qemu-move.ts";

const NOTES = [
  "The guest is stopped at the source, and is not run where it arrives.",
  "Snapshots lie in tmpfs, so no disk is waited for.",
  "CPU time is user and system time of both ends together, in the postcopy phase.",
  "QEMU has postcopy-preempt on.",
  "C is two processes that do what has to be done and nothing else, with nothing to look for or to give " +
    "an answer to.",
];

/** From QEMU into a snapshot of ours, beside QEMU to QEMU. */
export async function capture({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  const memoryMib = bulkMemoryMib(quick);
  return await compare("capture", memoryMib, {
    title: "Capture: from QEMU into a snapshot",
    setting: `A QEMU sends ${memoryMib} MiB, by post-copy alone, to a dest that keeps them, over TCP on the loopback.`,
    name: qemuToOurs,
    inC: "capture",
    move: async (version) => {
      await using directory = new MemoryDirectory();
      return await captureGuest(version, memoryMib, directory.file("guest"));
    },
  });
}

/** From a snapshot of ours into QEMU, beside QEMU to QEMU. */
export async function restoreRate({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  const memoryMib = bulkMemoryMib(quick);
  return await compare("restore-rate", memoryMib, {
    title: "Restore: from a snapshot into QEMU",
    setting: `A source serves ${memoryMib} MiB of a snapshot to a QEMU, by post-copy alone, over TCP on the loopback.`,
    name: oursToQemu,
    inC: "restore",
    move: async (version) => {
      await using directory = new MemoryDirectory();
      const snapshot = directory.file("guest");
      await captureGuest(version, memoryMib, snapshot);
      return await restoreGuest(version, memoryMib, snapshot);
    },
  });
}

interface Side {
  title: string;
  setting: string;
  name: (version: QemuVersion) => string;
  /** What the C program calls it. */
  inC: "capture" | "restore";
  move: (version: QemuVersion) => Promise<Move>;
}

/** One contender of ours and one of QEMU's for each version, and C; that ours is no slower than QEMU. */
async function compare(id: string, memoryMib: number, side: Side): Promise<Benchmark | undefined> {
  if (!isHere(id, needUserfaultfd())) return undefined;
  const versions = peers(id);
  if (versions.length === 0) return undefined;
  const hasC = isHere(`${id} in C`, needCompiler(), needSums());
  const pairs = versions.flatMap((version): Contender[] => [
    {
      name: side.name(version),
      program: OUR_PROGRAM,
      run: async () => runOf(await side.move(version)),
    },
    qemuContender(version, "idle", memoryMib),
  ]);
  const targets = versions.map((version): Target => ({
    ...{ figure: RATE.id, of: side.name(version), to: qemuToQemu(version) },
    ...{ bound: "at least", ratio: 1 },
  }));
  const { title, setting } = side;
  return {
    id,
    title,
    setting,
    axis: null,
    figures: [RATE, CPU],
    contenders: [...pairs, ...(hasC ? [moveInC(side.inC, memoryMib)] : [])],
    targets,
    notes: NOTES,
  };
}

/** Without it the C program reckons sums in a way that shows no limit. */
function needSums(): Need {
  return {
    what: "carry-less multiplication",
    missing: process.arch === "x64" ? undefined : "the C program has it for x86-64 only",
  };
}

/** A QEMU's guest into a snapshot; the rate is the one that the QEMU itself tells. */
async function captureGuest(
  version: QemuVersion,
  memoryMib: number,
  snapshot: string,
): Promise<Move> {
  await using source = await startSource(version, memoryMib, "idle");
  await using dest = startOurDest(`snapshot:${snapshot}`);
  const peer = await peerOf(dest);
  await sendByPostcopy(source, peer);
  const move = await observeSource(source, dest.pid);
  destReportOf(await collectRun(dest));
  return move;
}

/** A snapshot into a QEMU; the rate is the one that our source tells. */
async function restoreGuest(
  version: QemuVersion,
  memoryMib: number,
  snapshot: string,
): Promise<Move> {
  await using destination = await startDestination(version, memoryMib, "idle");
  const port = await destination.listen();
  const words = ["--guest", `snapshot:${snapshot}`, "--to", `tcp:127.0.0.1:${port}`, "--preempt"];
  const command = postcopyCommand("source", ...words, "--no-record", "--no-journal", "--json");
  await using source = spawn(command, { lifeMs: LONG_TEST_MS });
  let meter: CpuMeter | undefined;
  const sending = await collectRun(source, ({ event }) => {
    if (event === "switchover") meter = new CpuMeter(source.pid, destination.program.pid);
  });
  using cpu = meter;
  const cpuSeconds = cpu?.seconds() ?? Number.NaN;
  const { rates, bytes } = sourceReportOf(sending);
  await destination.waitForMigration("completed");
  const cpuSecondsPerGib = (cpuSeconds / (bytes.postcopy + bytes.requested)) * GIB;
  return { bytesPerSecond: rates.postcopy ?? Number.NaN, cpuSecondsPerGib };
}
