/**
 * The whole way through an unmodified QEMU: a running guest is captured by post-copy into a
 * snapshot, and comes back, running, in another QEMU. The guest's own memory is the check: it
 * increments one byte a page for ever, so all bytes are within one step of each other.
 */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { startDest } from "../helpers/migration.ts";
import { needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { startQemu } from "../helpers/qemu.ts";
import {
  captureQemu,
  COMPRESS,
  enablePostcopy,
  expectCountsOn,
  restoreIntoQemu,
  slowPrecopy,
} from "../helpers/qemu-snapshot.ts";
import {
  QEMU_VERSIONS,
  machineOf,
  needQemuVersion,
  qemuProgram,
} from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const qemuTest = requireOrSkip(needQemu(), needUserfaultfd());

interface Case {
  name: string;
  capabilities: Record<string, boolean>;
  parameters?: Record<string, unknown>;
  round: number;
  versions: readonly QemuVersion[];
}

const CASES: readonly Case[] = [
  { name: "pure postcopy", capabilities: {}, round: 0, versions: QEMU_VERSIONS },
  { name: "after a precopy round", capabilities: {}, round: 2, versions: ["7.2"] },
  {
    name: "with xbzrle in precopy",
    capabilities: { xbzrle: true },
    round: 3,
    versions: QEMU_VERSIONS,
  },
  // QEMU 9.1 has taken it out.
  {
    name: "with compress in precopy",
    ...COMPRESS,
    round: 2,
    versions: ["7.2"],
  },
];

for (const { name, capabilities, parameters = {}, round, versions } of CASES) {
  for (const version of versions) {
    const how = { program: qemuProgram(version), machine: machineOf(version) };
    const versionTest = requireOrSkip(needQemuVersion(version), needUserfaultfd());
    versionTest(`QEMU ${version} to snapshot and back, ${name}: the guest counts on`, async () => {
      await using directory = new TemporaryDirectory("snapshot");
      const snapshot = directory.file("guest");
      await using source = await startQemu(how);
      await enablePostcopy(source, capabilities);
      await slowPrecopy(source);
      await source.qmp.execute("migrate-set-parameters", parameters);
      await source.waitForRounds(3);
      const before = await source.readCount();
      const report = await captureQemu(source, snapshot, { round });
      if (round > 0) expect(report.pages.precopyNormal).toBeGreaterThan(0);
      expect(existsSync(`${snapshot}/manifest.json`)).toBe(true);
      await using destination = await startQemu({ ...how, incoming: "defer" });
      await restoreIntoQemu(snapshot, destination);
      await expectCountsOn(destination, before);
    });
  }
}

/** A memory device of which nothing is plugged in: QEMU neither sends nor discards its pages. */
const UNPLUGGED_MIB = 64;
const VIRTIO_MEM = [
  ...["-m", "64M,maxmem=1G"],
  ...["-object", `memory-backend-ram,id=m0,size=${UNPLUGGED_MIB}M`],
  ...["-device", "virtio-mem-pci,memdev=m0,requested-size=0"],
];

qemuTest("QEMU 7.2 with unplugged memory to snapshot: no page is missing", async () => {
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

/**
 * Since 8.1 the device's state comes ahead of all memory, outside of the package. That the guest goes
 * on cannot be asked of 11.1: with this device, under TCG, it fails an assertion of its own
 * (tlb_reset_dirty_range_all) in any migration, also in one to `exec:cat`.
 */
for (const version of ["10.0", "11.1"] as const) {
  requireOrSkip(needQemuVersion(version), needUserfaultfd())(
    `QEMU ${version} with unplugged memory is refused by name`,
    async () => {
      await using directory = new TemporaryDirectory("snapshot");
      const how = { program: qemuProgram(version), machine: machineOf(version) };
      await using source = await startQemu({ ...how, extraArguments: VIRTIO_MEM });
      await enablePostcopy(source);
      await source.waitForRounds(3);
      await using dest = await startDest({ guest: `snapshot:${directory.file("guest")}` });
      await source.qmp.execute("migrate", { uri: dest.peer });
      const { exitCode, stderr } = await dest.end();
      expect(exitCode).toBe(1);
      expect(stderr).toContain("virtio-mem-device-early");
      if (version !== "11.1") await source.waitForMoreSerial(3);
    },
  );
}

qemuTest("QEMU 7.2 with multifd is refused by name, and its guest goes on", async () => {
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
  expect(stderr).toContain("multifd channels in the way of QEMU before 9.0");
  await source.waitForMoreSerial(3);
});
