/**
 * The whole way through an unmodified QEMU: a running guest is captured by post-copy into a
 * snapshot, and comes back, running, in another QEMU. The guest's own memory is the check: it
 * increments one byte a page for ever, so all bytes are within one step of each other.
 */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { sourceReportSchema } from "../../src/report/report.ts";
import type { DestReport } from "../../src/report/report.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const qemuTest = requireOrSkip(needQemu(), needUserfaultfd());

/** Slow enough that precopy does not end by itself, fast enough for a round of 128 MiB. */
const PRECOPY_BYTES_PER_SECOND = 200 * 1024 * 1024;

/** Waits until QEMU has begun its precopy round `round`, counted from 1. */
async function waitForPrecopyRound(source: Qemu, round: number): Promise<void> {
  await waitUntil(async () => {
    const { ram } = await source.qmp.execute<{ ram?: { "dirty-sync-count": number } }>(
      "query-migrate",
    );
    return (ram?.["dirty-sync-count"] ?? 0) >= round;
  }, `precopy round ${round} of QEMU`);
}

/** Captures a running QEMU into a directory, switching in the given round (0: at once). */
async function capture(source: Qemu, directory: string, round: number): Promise<DestReport> {
  const words = ["dest", "--json", "--guest", `snapshot:${directory}`];
  await using dest = spawn(postcopyCommand(...words, "--listen", "tcp:127.0.0.1:0"));
  let report: DestReport | undefined;
  for await (const event of dest.events()) {
    if (event["event"] === "listening") {
      await source.qmp.execute("migrate", { uri: String(event["peer"]) });
      await waitForPrecopyRound(source, round);
      await source.qmp.execute("migrate-start-postcopy");
    }
    if (event["event"] === "report") report = event["report"] as DestReport;
  }
  const { exitCode, stderr } = await dest.finish();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await source.waitForMigration("completed");
  if (report === undefined) throw new Error("dest gave no report");
  return report;
}

/** Brings a snapshot back in a QEMU of its own, and looks that the guest counts on from `before`. */
async function restore(snapshot: string, before: Count): Promise<void> {
  await using destination = await startQemu({ incoming: "defer" });
  await destination.setCapabilities({ events: true, "postcopy-ram": true });
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  const words = ["source", "--json", "--guest", `snapshot:${snapshot}`, "--to", to];
  await using source = spawn(postcopyCommand(...words));
  let report: unknown;
  for await (const event of source.events()) {
    if (event["event"] === "report") report = event["report"];
  }
  const { exitCode, stderr } = await source.finish();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  const { times, pages, outcome } = sourceReportSchema.parse(report);
  expect(outcome).toBe("completed");
  expect(times.toRunning).toBeNumber();
  expect(times.toDrained).toBeGreaterThan(times.toRunning ?? Infinity);
  const sent = pages.pushedNormal + pages.pushedZero + pages.requestedNormal + pages.requestedZero;
  // Each page exactly once: a QEMU destination pauses on a repeat.
  expect(sent).toBe(pages.total);

  await destination.waitForMigration("completed");
  const after = await destination.readCount();
  expect(hasCountedOn(before, after)).toBe(true);
  await destination.waitForMoreSerial(3);
  expect(hasCountedOn(after, await destination.readCount())).toBe(true);
}

interface Case {
  name: string;
  capabilities: Record<string, boolean>;
  round: number;
}

const CASES: Case[] = [
  { name: "pure postcopy", capabilities: {}, round: 0 },
  { name: "after a precopy round", capabilities: {}, round: 2 },
  { name: "with xbzrle in precopy", capabilities: { xbzrle: true }, round: 3 },
  { name: "with compress, of old QEMUs", capabilities: { compress: true }, round: 2 },
];

for (const { name, capabilities, round } of CASES) {
  qemuTest(`QEMU to snapshot to QEMU, ${name}: the guest counts on`, async () => {
    await using directory = new TemporaryDirectory("snapshot");
    const snapshot = directory.file("guest");
    await using source = await startQemu();
    await source.setCapabilities({ events: true, "postcopy-ram": true, ...capabilities });
    await source.qmp.execute("migrate-set-parameters", {
      "max-bandwidth": PRECOPY_BYTES_PER_SECOND,
      "downtime-limit": 1,
    });
    await source.waitForRounds(3);
    const before = await source.readCount();
    const report = await capture(source, snapshot, round);
    expect(report).toMatchObject({ role: "dest", outcome: "completed" });
    if (round > 0) expect(report.pages.precopyNormal).toBeGreaterThan(0);
    expect(existsSync(`${snapshot}/manifest.json`)).toBe(true);
    await restore(snapshot, before);
  });
}

/** A memory device of which nothing is plugged in: QEMU neither sends nor discards its pages. */
const UNPLUGGED_MIB = 64;
const VIRTIO_MEM = [
  ...["-m", "128M,maxmem=1G"],
  ...["-object", `memory-backend-ram,id=m0,size=${UNPLUGGED_MIB}M`],
  ...["-device", "virtio-mem-pci,memdev=m0,requested-size=0"],
];

qemuTest("QEMU with unplugged memory to snapshot: no page is missing", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const snapshot = directory.file("guest");
  await using source = await startQemu({ extraArguments: VIRTIO_MEM });
  await source.setCapabilities({ events: true, "postcopy-ram": true });
  await source.waitForRounds(3);
  const report = await capture(source, snapshot, 0);
  expect(report).toMatchObject({ role: "dest", outcome: "completed" });
  // The device's memory is known, and nobody owes it.
  const unplugged = (UNPLUGGED_MIB * 2 ** 20) / 4096;
  expect(report.pages.total - report.pages.missing).toBeGreaterThanOrEqual(unplugged);
  expect(existsSync(`${snapshot}/manifest.json`)).toBe(true);
});

qemuTest(
  "a QEMU that sends pages on multifd channels is refused, and its guest goes on",
  async () => {
    await using directory = new TemporaryDirectory("snapshot");
    await using source = await startQemu();
    await source.setCapabilities({ events: true, "postcopy-ram": true, multifd: true });
    await source.waitForRounds(3);
    const words = ["dest", "--json", "--guest", `snapshot:${directory.file("guest")}`];
    await using dest = spawn(postcopyCommand(...words, "--listen", "tcp:127.0.0.1:0"));
    for await (const event of dest.events()) {
      if (event["event"] !== "listening") continue;
      await source.qmp.execute("migrate", { uri: String(event["peer"]) });
    }
    const { exitCode, stderr } = await dest.finish();
    expect(exitCode).toBe(1);
    expect(stderr).toContain("The source sends pages on multifd channels");
    await source.waitForMoreSerial(3);
  },
);
