/**
 * A QEMU that sends the pages of precopy on multifd channels, kept and brought back. The guest's own
 * memory is the check; the channels carry all that precopy sends, the main one what postcopy does.
 */
import { expect } from "bun:test";

import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  captureInPrecopy,
  captureQemu,
  enablePostcopy,
  expectCountsOn,
  restoreIntoQemu,
  slowPrecopy,
} from "../helpers/qemu-snapshot.ts";
import { machineOf, needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

for (const version of ["10.0", "11.1"] as const) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`QEMU ${version} with multifd, completing in precopy, to snapshot and back`, async () => {
    await using directory = new TemporaryDirectory("multifd");
    const snapshot = directory.file("guest");
    const qemu = { program: qemuProgram(version), machine: machineOf(version) };
    await using source = await startQemu(qemu);
    await source.setCapabilities({ events: true, multifd: true });
    await source.qmp.execute("migrate-set-parameters", { "multifd-compression": "zstd" });
    await source.waitForRounds(3);
    const before = await source.readCount();
    const { multifd, bytes } = await captureInPrecopy(source, snapshot);
    expect(multifd).toEqual({ channels: 2, compression: "zstd" });
    expect(bytes.multifd).toBeGreaterThan(0);
    await using destination = await startQemu({ ...qemu, incoming: "defer" });
    await restoreIntoQemu(snapshot, destination);
    await expectCountsOn(destination, before);
  });
}

interface Case {
  compression: "none" | "zlib" | "zstd";
  channels: number;
  preempt?: boolean;
  /** Of an older QEMU: it ends rounds by sections, not by records. */
  machine?: string;
}

const CASES: readonly Case[] = [
  { compression: "none", channels: 2 },
  { compression: "zlib", channels: 2 },
  { compression: "zstd", channels: 8 },
  { compression: "none", channels: 4, preempt: true },
  { compression: "none", channels: 1, machine: machineOf("7.2") },
];

const multifdTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());

for (const { compression, channels, preempt = false, machine = machineOf("11.1") } of CASES) {
  const how = [`${channels} channels`, compression, ...(preempt ? ["preempt"] : []), machine];
  multifdTest(`QEMU 11.1 with multifd (${how.join(", ")}) to snapshot and back`, async () => {
    await using directory = new TemporaryDirectory("multifd");
    const snapshot = directory.file("guest");
    const qemu = { program: qemuProgram("11.1"), machine };
    await using source = await startQemu(qemu);
    await enablePostcopy(source, { multifd: true, "postcopy-preempt": preempt });
    await slowPrecopy(source);
    await source.qmp.execute("migrate-set-parameters", {
      "multifd-channels": channels,
      "multifd-compression": compression,
    });
    await source.waitForRounds(3);
    const before = await source.readCount();
    const report = await captureQemu(source, snapshot, { round: 3 });
    expect(report.multifd).toEqual({ channels, compression });
    expect(report.pages.precopyNormal).toBeGreaterThan(0);
    expect(report.bytes.multifd).toBeGreaterThan(0);
    await using destination = await startQemu({ ...qemu, incoming: "defer" });
    await restoreIntoQemu(snapshot, destination);
    await expectCountsOn(destination, before);
  });
}
