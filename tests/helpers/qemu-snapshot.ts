/**
 * A guest from a real QEMU into a snapshot, and from a snapshot into a real QEMU, by the program as
 * an operator runs it:
 *
 *     const report = await captureQemu(source, snapshot, { round: 2 });
 *     await restoreIntoQemu(snapshot, destination);
 */
import { expect } from "bun:test";

import { sourceReportSchema } from "../../src/report/report.ts";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import type { BootSectorRange } from "./boot-sector.ts";
import { waitUntil } from "./deadline.ts";
import { hasCountedOn } from "./memory-pattern.ts";
import type { Count } from "./memory-pattern.ts";
import { startDest, startSource } from "./migration.ts";
import type { Qemu } from "./qemu.ts";

/** Slow enough that precopy does not end by itself, fast enough for a round of 64 MiB. */
const PRECOPY_BYTES_PER_SECOND = 200 * 1024 * 1024;

/** Waits until QEMU has begun its precopy round `round`, counted from 1. */
export async function waitForPrecopyRound(source: Qemu, round: number): Promise<void> {
  await waitUntil(async () => {
    const { ram } = await source.qmp.execute<{ ram?: { "dirty-sync-count": number } }>(
      "query-migrate",
    );
    return (ram?.["dirty-sync-count"] ?? 0) >= round;
  }, `precopy round ${round} of QEMU`);
}

/**
 * How a QEMU compresses in tests (`compress`, up to 9.0). It hands each page to a thread and waits for
 * one that is free: of its own eight, most of two cores' time goes into waking them.
 */
export const COMPRESS = {
  capabilities: { compress: true },
  parameters: { "compress-threads": 2 },
} as const;

/** With QEMU's own 300 ms a small guest on a busy machine is through before it is told to switch. */
const LEAST_DOWNTIME = { "downtime-limit": 1 };

/**
 * Switches post-copy on at a QEMU, with its events and what else is asked for; precopy does not end by
 * itself there as long as the guest writes.
 */
export async function enablePostcopy(
  qemu: Qemu,
  capabilities: Record<string, boolean> = {},
): Promise<void> {
  await qemu.setCapabilities({ events: true, "postcopy-ram": true, ...capabilities });
  await qemu.qmp.execute("migrate-set-parameters", LEAST_DOWNTIME);
}

/** Has a QEMU precopy slowly enough that it is still at it when it is told to switch. */
export async function slowPrecopy(qemu: Qemu): Promise<void> {
  await qemu.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": PRECOPY_BYTES_PER_SECOND,
    ...LEAST_DOWNTIME,
  });
}

/**
 * Captures a running QEMU, on which post-copy is switched on, into `directory`; it switches over in
 * precopy round `round` (0: at once). Gives the report of the destination, which has succeeded.
 */
export async function captureQemu(
  source: Qemu,
  directory: string,
  options: { round?: number; flags?: readonly string[] } = {},
): Promise<DestReport> {
  const { round = 0, flags = [] } = options;
  await using dest = await startDest({ guest: `snapshot:${directory}`, flags });
  await source.qmp.execute("migrate", { uri: dest.peer });
  await waitForPrecopyRound(source, round);
  await source.qmp.execute("migrate-start-postcopy");
  const { exitCode, stderr, report } = await dest.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await source.waitForMigration("completed");
  expect(report).toMatchObject({ outcome: "completed", completedIn: "postcopy" });
  return report;
}

/** The longest downtime that QEMU may be given: it stops the guest as soon as it has a rate at all. */
const DOWNTIME_LIMIT_MAX_MS = 2_000_000;

/**
 * As much time for the last round as it takes: QEMU completes in precopy, whatever its guest writes.
 * It judges by its rate in bytes on the wire, which with `compress` on a busy machine is very low.
 */
export async function hasteToComplete(qemu: Qemu): Promise<void> {
  await qemu.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": 0,
    "downtime-limit": DOWNTIME_LIMIT_MAX_MS,
  });
}

/**
 * Captures a running QEMU that completes in precopy, with whatever capabilities are on there. Gives
 * the report of the destination, which has succeeded; the guest stands in that QEMU.
 */
export async function captureInPrecopy(source: Qemu, directory: string): Promise<DestReport> {
  await hasteToComplete(source);
  await using dest = await startDest({ guest: `snapshot:${directory}` });
  await source.qmp.execute("migrate", { uri: dest.peer });
  const { exitCode, stderr, report, events } = await dest.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await source.waitForMigration("completed");
  // It was kept, not run.
  expect(events.some(({ event }) => event === "running")).toBe(false);
  expect(report).toMatchObject({ outcome: "completed", completedIn: "precopy", downtime: null });
  expect(stderr).toContain("in precopy, without a switch to postcopy");
  expect(report.pages).toMatchObject({ missing: 0, pushedNormal: 0, pushedZero: 0 });
  expect(report.times).toMatchObject({ postcopy: null, toRunning: null });
  expect(report.times.toDrained).toBeGreaterThanOrEqual(report.times.device ?? Infinity);
  return report;
}

/**
 * Sends a snapshot to a QEMU that was started with `incoming: "defer"`, and waits until both say that
 * all of it is there. Gives the report of the source. `capabilities` beside postcopy-ram are
 * switched on at the QEMU.
 */
export async function restoreIntoQemu(
  snapshot: string,
  destination: Qemu,
  options: { capabilities?: Record<string, boolean>; flags?: readonly string[] } = {},
): Promise<SourceReport> {
  const { capabilities = {}, flags = [] } = options;
  await enablePostcopy(destination, capabilities);
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  await using source = startSource({ to, guest: `snapshot:${snapshot}`, flags });
  const { exitCode, stderr, report: given } = await source.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  const report = sourceReportSchema.parse(given);
  const { times, pages, outcome } = report;
  expect(outcome).toBe("completed");
  expect(times.toRunning).toBeNumber();
  expect(times.toDrained).toBeGreaterThan(times.toRunning ?? Infinity);
  const sent = pages.pushedNormal + pages.pushedZero + pages.requestedNormal + pages.requestedZero;
  // Each page exactly once: a QEMU destination pauses on a repeat.
  expect(sent).toBe(pages.total);
  await destination.waitForMigration("completed");
  return report;
}

/** The boot-sector guest has counted on since `before`, goes on counting, and its memory is right. */
export async function expectCountsOn(
  qemu: Qemu,
  before: Count,
  range?: BootSectorRange,
): Promise<void> {
  const after = await qemu.readCount(range);
  expect(hasCountedOn(before, after)).toBe(true);
  await qemu.waitForMoreSerial(3);
  expect(hasCountedOn(after, await qemu.readCount(range))).toBe(true);
}
