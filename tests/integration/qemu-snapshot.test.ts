/**
 * The whole way through an unmodified QEMU: a running guest is captured by post-copy into a
 * snapshot, and comes back, running, in another QEMU. The guest's own memory is the check: it
 * increments one byte a page for ever, so all bytes are within one step of each other.
 */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { startQemu } from "../helpers/qemu.ts";
import {
  captureQemu,
  enablePostcopy,
  restoreIntoQemu,
  slowPrecopy,
} from "../helpers/qemu-snapshot.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const qemuTest = requireOrSkip(needQemu(), needUserfaultfd());

/** Brings a snapshot back in a QEMU of its own, and looks that the guest counts on from `before`. */
async function restore(snapshot: string, before: Count): Promise<void> {
  await using destination = await startQemu({ incoming: "defer" });
  await restoreIntoQemu(snapshot, destination);
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
    await enablePostcopy(source, capabilities);
    await slowPrecopy(source);
    await source.waitForRounds(3);
    const before = await source.readCount();
    const report = await captureQemu(source, snapshot, { round });
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
  await enablePostcopy(source);
  await source.waitForRounds(3);
  const report = await captureQemu(source, snapshot);
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
    await enablePostcopy(source, { multifd: true });
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
