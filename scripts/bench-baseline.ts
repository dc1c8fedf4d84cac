/**
 * The yardstick: how fast an unmodified QEMU pushes memory to another in the postcopy phase, on
 * this machine, over loopback TCP. A guest whose memory is full of numbers that look random is
 * moved by post-copy alone, as often as asked, and the median is reported.
 *
 *     bun scripts/bench-baseline.ts [--json] [--runs N] [--memory-mib N] [--guest idle|counting]
 */
import { parseArgs } from "node:util";

import { buildBootSector } from "../tests/helpers/boot-sector.ts";
import { withDeadline } from "../tests/helpers/deadline.ts";
import type { Qemu } from "../tests/helpers/qemu.ts";
import { findQemu, startQemu } from "../tests/helpers/qemu.ts";

const MIB = 1024 * 1024;
/** Memory of the guest beside what is filled: the first MiB, and the BIOS's own at the top. */
const SPARE_MIB = 16;
/** Slow enough that next to nothing goes before the switch to postcopy. */
const PRECOPY_BYTES_PER_SECOND = 4096;
const RUN_LIMIT_MS = 180_000;

/** Whether the guest stands still during the move, or writes to every page again and again. */
export type BaselineGuest = "idle" | "counting";

export interface BaselineOptions {
  runs?: number;
  /** Memory of the guest that is filled, and so must travel. */
  memoryMib?: number;
  guest?: BaselineGuest;
}

/** One move, as QEMU's own counters and the time stamps of its events tell it. */
export interface BaselineRun {
  /** Bytes sent in the postcopy phase, with their headers. */
  postcopyBytes: number;
  /** From the event postcopy-active to the event completed, both at the source. */
  postcopyMs: number;
  bytesPerSecond: number;
  /** Page requests of the destination that reached the source. */
  requests: number;
}

export interface Baseline {
  qemu: string;
  guest: BaselineGuest;
  memoryMib: number;
  runs: BaselineRun[];
  medianBytesPerSecond: number;
}

interface MigrationInfo {
  ram: { "postcopy-bytes": number; "postcopy-requests": number };
}

/** Measures QEMU to QEMU; needs `qemu-system-x86_64` and the right to use userfaultfd. */
export async function measureBaseline(options: BaselineOptions = {}): Promise<Baseline> {
  const { runs: count = 3, memoryMib = 1024, guest = "idle" } = options;
  const runs: BaselineRun[] = [];
  let qemu = "";
  for (let index = 0; index < count; index++) {
    const { run, version } = await withDeadline(
      moveOnce(memoryMib, guest),
      "a QEMU to QEMU migration",
      RUN_LIMIT_MS,
    );
    runs.push(run);
    qemu = version;
  }
  return { qemu, guest, memoryMib, runs, medianBytesPerSecond: medianRate(runs) };
}

function medianRate(runs: readonly BaselineRun[]): number {
  const rates = runs.map((run) => run.bytesPerSecond).sort((a, b) => a - b);
  const upper = rates[Math.floor(rates.length / 2)] ?? Number.NaN;
  const lower = rates[Math.floor((rates.length - 1) / 2)] ?? Number.NaN;
  return (upper + lower) / 2;
}

async function moveOnce(
  memoryMib: number,
  guest: BaselineGuest,
): Promise<{ run: BaselineRun; version: string }> {
  const range = { startAddress: MIB, endAddress: (memoryMib + 1) * MIB };
  const bootSector = buildBootSector(range, { filled: true });
  const guestMib = memoryMib + SPARE_MIB;
  await using source = await startQemu({ memoryMib: guestMib, bootSector });
  await using destination = await startQemu({
    memoryMib: guestMib,
    bootSector,
    incoming: "defer",
    // A destination of post-copy starts the guest even if it stood still at the source.
    extraArguments: guest === "idle" ? ["-S"] : [],
  });
  for (const end of [source, destination]) {
    await end.setCapabilities({ events: true, "postcopy-ram": true });
  }
  await source.waitForRounds(1);
  if (guest === "idle") await source.qmp.execute("stop");

  const port = await destination.listen();
  await source.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": PRECOPY_BYTES_PER_SECOND,
    "max-postcopy-bandwidth": 0,
  });
  await source.qmp.execute("migrate", { uri: `tcp:127.0.0.1:${port}` });
  await source.qmp.execute("migrate-start-postcopy");
  return { run: await observe(source), version: await qemuVersion(source) };
}

async function observe(source: Qemu): Promise<BaselineRun> {
  const limit = { limitMs: RUN_LIMIT_MS };
  const began = await source.waitForMigration("postcopy-active", limit);
  const ended = await source.waitForMigration("completed", limit);
  const { ram } = await source.qmp.execute<MigrationInfo>("query-migrate");
  const postcopyBytes = ram["postcopy-bytes"];
  const postcopyMs = ended.timeMs - began.timeMs;
  return {
    postcopyBytes,
    postcopyMs,
    bytesPerSecond: Math.round(postcopyBytes / (postcopyMs / 1000)),
    requests: ram["postcopy-requests"],
  };
}

async function qemuVersion(qemu: Qemu): Promise<string> {
  const reply = await qemu.qmp.execute<{ qemu: { major: number; minor: number; micro: number } }>(
    "query-version",
  );
  const { major, minor, micro } = reply.qemu;
  return `${major}.${minor}.${micro}`;
}

function describe(baseline: Baseline): string {
  const mib = (bytes: number): string => (bytes / MIB).toFixed(0);
  const lines = baseline.runs.map(
    (run, index) =>
      `  run ${index + 1}: ${mib(run.postcopyBytes)} MiB in ${run.postcopyMs.toFixed(0)} ms, ` +
      `${mib(run.bytesPerSecond)} MiB/s, ${run.requests} page requests`,
  );
  return [
    `QEMU ${baseline.qemu} to QEMU, postcopy of ${baseline.memoryMib} MiB, guest ${baseline.guest}`,
    ...lines,
    `  median: ${mib(baseline.medianBytesPerSecond)} MiB/s`,
  ].join("\n");
}

function wholeNumber(text: string, flag: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new Error(`${flag} wants a whole number, not ${text}`);
  return Number(text);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: "boolean", default: false },
      runs: { type: "string", default: "3" },
      "memory-mib": { type: "string", default: "1024" },
      guest: { type: "string", default: "idle" },
    },
  });
  if (values.guest !== "idle" && values.guest !== "counting") {
    throw new Error(`--guest is "idle" or "counting", not "${values.guest}"`);
  }
  if (findQemu() === null) throw new Error("there is no qemu-system-x86_64 on this machine");
  const baseline = await measureBaseline({
    runs: wholeNumber(values.runs, "--runs"),
    memoryMib: wholeNumber(values["memory-mib"], "--memory-mib"),
    guest: values.guest,
  });
  console.log(values.json ? JSON.stringify(baseline, null, 2) : describe(baseline));
}

if (import.meta.main) await main();
