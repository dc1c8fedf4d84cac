/**
 * The yardstick: an unmodified QEMU that moves a guest to another by post-copy alone, over loopback
 * TCP. The guest's memory is full of numbers that look random.
 */
import { buildBootSector } from "../helpers/boot-sector.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { QmpEvent } from "../helpers/qmp.ts";
import { machineOf, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { CpuMeter } from "./cpu-meter.ts";

const MIB = 1024 * 1024;
/** Memory of the guest beside what is filled: the first MiB, and the BIOS's own at the top. */
const SPARE_MIB = 16;
/** Slow enough that next to nothing goes before the switch to postcopy. */
const PRECOPY_BYTES_PER_SECOND = 4096;
const RUN_LIMIT_MS = 180_000;

/** Whether the guest stands still during the move, or writes to every page again and again. */
export type GuestActivity = "idle" | "running";

/** One move, as far as both kinds of ends can tell it. */
export interface Move {
  /** Bytes a second on the wire, of the postcopy phase. */
  bytesPerSecond: number;
  /** Of both ends in that phase. */
  cpuSecondsPerGib: number;
}

export const GIB = 2 ** 30;

/** A QEMU with that much filled memory, at which the guest runs or waits to come. */
export async function startFilled(
  version: QemuVersion,
  memoryMib: number,
  extra: { incoming?: string; extraArguments?: readonly string[] } = {},
): Promise<Qemu> {
  const range = { startAddress: MIB, endAddress: (memoryMib + 1) * MIB };
  const qemu = await startQemu({
    program: qemuProgram(version),
    machine: machineOf(version),
    memoryMib: memoryMib + SPARE_MIB,
    bootSector: buildBootSector(range, { filled: true }),
    ...extra,
  });
  await qemu.setCapabilities({ events: true, "postcopy-ram": true, "postcopy-preempt": true });
  return qemu;
}

/** The source of a move, its guest at work or stopped; every page of it has been written. */
export async function startSource(
  version: QemuVersion,
  memoryMib: number,
  activity: GuestActivity,
): Promise<Qemu> {
  const source = await startFilled(version, memoryMib);
  await source.waitForRounds(1);
  if (activity === "idle") await source.qmp.execute("stop");
  return source;
}

/** A QEMU that waits for it. */
export async function startDestination(
  version: QemuVersion,
  memoryMib: number,
  activity: GuestActivity,
): Promise<Qemu> {
  return await startFilled(version, memoryMib, {
    incoming: "defer",
    // A destination of post-copy starts the guest even if it stood still at the source.
    extraArguments: activity === "idle" ? ["-S"] : [],
  });
}

/** Has a QEMU send its guest by post-copy alone. */
export async function sendByPostcopy(source: Qemu, uri: string): Promise<void> {
  await source.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": PRECOPY_BYTES_PER_SECOND,
    "max-postcopy-bandwidth": 0,
  });
  await source.qmp.execute("migrate", { uri });
  await source.qmp.execute("migrate-start-postcopy");
}

/** QEMU to QEMU of the same version. */
export async function moveByQemu(
  version: QemuVersion,
  memoryMib: number,
  activity: GuestActivity,
): Promise<Move> {
  await using source = await startSource(version, memoryMib, activity);
  await using destination = await startDestination(version, memoryMib, activity);
  const port = await destination.listen();
  await sendByPostcopy(source, `tcp:127.0.0.1:${port}`);
  return await observeSource(source, destination.program.pid);
}

/**
 * From 10.1 on a source pushes pages while the destination loads its devices (postcopy-device), and
 * says postcopy-active up to 50 ms later.
 */
export async function postcopyBegins(source: Qemu): Promise<QmpEvent> {
  const begins = new Set(["postcopy-device", "postcopy-active", "failed"]);
  return await source.qmp.waitForEvent("MIGRATION", {
    accept: ({ data }) => begins.has(String(data["status"])),
  });
}

interface MigrationInfo {
  ram: { "postcopy-bytes": number };
}

/** What a QEMU that sends says of its postcopy phase, once that is over; `peerPid` is the other end. */
export async function observeSource(source: Qemu, peerPid: number): Promise<Move> {
  const limit = { limitMs: RUN_LIMIT_MS };
  const began = await postcopyBegins(source);
  using cpu = new CpuMeter(source.program.pid, peerPid);
  const ended = await source.waitForMigration("completed", limit);
  const cpuSeconds = cpu.seconds();
  const { ram } = await source.qmp.execute<MigrationInfo>("query-migrate");
  const bytes = ram["postcopy-bytes"];
  const seconds = (ended.timeMs - began.timeMs) / 1000;
  return { bytesPerSecond: bytes / seconds, cpuSecondsPerGib: (cpuSeconds / bytes) * GIB };
}
