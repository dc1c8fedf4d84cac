/** How long a guest stands still that writes all the time, from its last instruction to its first. */
import type { Benchmark, Contender } from "../../src/bench/contest.ts";
import type { Target } from "../../src/bench/result.ts";
import {
  describeDowntime,
  DIRTIED_MIB,
  DOWNTIME,
  DOWNTIME_ROUNDS,
  downtimeMemoryMib,
  OUR_DOWNTIME_NOTES,
  ourDowntime,
} from "../../src/bench/downtime.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { machineOf, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { buildDirtyingGuest } from "./dirtying-guest.ts";
import { EXECUTABLE, needExecutable } from "./executable.ts";
import { OURS, qemuProgramName, qemuToQemu } from "./names.ts";
import { isHere, peers } from "./needs.ts";

const MIB = 1024 * 1024;
/** What it is meant to be at most, by itself. */
const DOWNTIME_MS_MAX = 10;

/** Memory of the guest beside what it writes to: the first MiB, and the BIOS's own at the top. */
const SPARE_MIB = 16;
const RUN_LIMIT_MS = 180_000;

/** Ours beside QEMU's, each with a guest of its own that dirties as much. */
export async function downtime({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isHere("downtime", needUserfaultfd(), needExecutable())) return undefined;
  const versions = peers("downtime");
  return {
    ...describeDowntime(quick),
    contenders: [
      ourDowntime(quick, [EXECUTABLE]),
      ...versions.map((version) => theirs(version, downtimeMemoryMib(quick))),
    ],
    targets: [...versions.map(qemuToQemu), null].map((to): Target => ({
      ...{ figure: DOWNTIME.id, of: OURS, to },
      ...{ bound: "at most", ratio: to === null ? DOWNTIME_MS_MAX : 1 },
    })),
    notes: [
      ...OUR_DOWNTIME_NOTES,
      "Ours is the executable.",
      "QEMU's is from its event STOP at the source to RESUME at the destination, by its own time stamps: " +
        "less than it is, as the page of the guest's first instruction may still have to come.",
      "QEMU's guest is emulated, and has postcopy-preempt on.",
    ],
  };
}

function theirs(version: QemuVersion, memoryMib: number): Contender {
  return {
    name: qemuToQemu(version),
    program: qemuProgramName(version),
    run: async () => ({ values: { [DOWNTIME.id]: await standstill(version, memoryMib) } }),
  };
}

async function start(version: QemuVersion, memoryMib: number, incoming?: string): Promise<Qemu> {
  const range = { startAddress: MIB, endAddress: (memoryMib + 1) * MIB };
  const qemu = await startQemu({
    program: qemuProgram(version),
    machine: machineOf(version),
    memoryMib: memoryMib + SPARE_MIB,
    bootSector: buildDirtyingGuest(range, DIRTIED_MIB * MIB),
    ...(incoming === undefined ? {} : { incoming }),
  });
  await qemu.setCapabilities({ events: true, "postcopy-ram": true, "postcopy-preempt": true });
  return qemu;
}

interface MigrationInfo {
  status?: string;
  ram?: { "dirty-sync-count": number };
}

/** Milliseconds from STOP at the source to RESUME at the destination. */
async function standstill(version: QemuVersion, memoryMib: number): Promise<number> {
  await using source = await start(version, memoryMib);
  await using destination = await start(version, memoryMib, "defer");
  await source.waitForRounds(1);
  const port = await destination.listen();
  await source.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": 2 ** 40,
    "max-postcopy-bandwidth": 0,
    // It must not complete before it is told to switch.
    "downtime-limit": 1,
  });
  await source.qmp.execute("migrate", { uri: `tcp:127.0.0.1:${port}` });
  // Each round begins with a look at what is dirty.
  await waitUntil(
    async () => {
      const { ram } = await source.qmp.execute<MigrationInfo>("query-migrate");
      return (ram?.["dirty-sync-count"] ?? 0) > DOWNTIME_ROUNDS;
    },
    `${DOWNTIME_ROUNDS} rounds of precopy`,
    RUN_LIMIT_MS,
  );
  await source.qmp.execute("migrate-start-postcopy");
  const limit = { limitMs: RUN_LIMIT_MS };
  const resumed = await destination.qmp.waitForEvent("RESUME", limit);
  const stopped = await source.qmp.waitForEvent("STOP", limit);
  await source.waitForMigration("completed", limit);
  return resumed.timeMs - stopped.timeMs;
}
