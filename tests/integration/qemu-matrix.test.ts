/**
 * Every version of QEMU that is in use, as the source of a capture and as the destination of a
 * restore, with its own machine type and, where a guest changes the version, with that of the older
 * one. docs/qemu.md is the table of these tests.
 */
import { expect } from "bun:test";

import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  captureQemu,
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
import { startQemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

interface Cell {
  from: QemuVersion;
  to: QemuVersion;
  /** Whether postcopy-preempt is on at the QEMU that is captured. */
  preemptFrom?: boolean;
  /** Whether it is on at the QEMU that the guest is restored in. */
  preemptTo?: boolean;
}

const CELLS: readonly Cell[] = [
  { from: "7.2", to: "7.2" },
  { from: "10.0", to: "10.0" },
  { from: "11.1", to: "11.1" },
  { from: "7.2", to: "10.0" },
  { from: "7.2", to: "11.1" },
  { from: "10.0", to: "11.1" },
  { from: "10.0", to: "7.2" },
  { from: "11.1", to: "7.2" },
  { from: "11.1", to: "10.0" },
  { from: "7.2", to: "7.2", preemptTo: true },
  { from: "10.0", to: "10.0", preemptTo: true },
  { from: "11.1", to: "11.1", preemptTo: true },
  { from: "7.2", to: "11.1", preemptTo: true },
  { from: "7.2", to: "7.2", preemptFrom: true },
  { from: "10.0", to: "10.0", preemptFrom: true },
  { from: "11.1", to: "11.1", preemptFrom: true },
];

function describeEnd(version: QemuVersion, preempt: boolean | undefined): string {
  return `QEMU ${version}${preempt === true ? " with preempt" : ""}`;
}

for (const { from, to, preemptFrom = false, preemptTo = false } of CELLS) {
  const matrixTest = requireOrSkip(needQemuVersion(from), needQemuVersion(to), needUserfaultfd());
  const ends = [describeEnd(from, preemptFrom), describeEnd(to, preemptTo)];
  matrixTest(`${ends.join(" to snapshot to ")}: the guest counts on`, async () => {
    await using directory = new TemporaryDirectory("matrix");
    const snapshot = directory.file("guest");
    // Of the older version, as the later one has it too.
    const machine = machineOf(QEMU_VERSIONS.indexOf(from) < QEMU_VERSIONS.indexOf(to) ? from : to);
    await using source = await startQemu({ program: qemuProgram(from), machine });
    await enablePostcopy(source, { "postcopy-preempt": preemptFrom });
    await slowPrecopy(source);
    await source.waitForRounds(3);
    const before = await source.readCount();
    const captured = await captureQemu(source, snapshot, { round: 2 });
    expect(captured.pages.precopyNormal).toBeGreaterThan(0);
    expect(captured.pages.missing).toBeGreaterThan(0);

    const program = qemuProgram(to);
    await using destination = await startQemu({ program, machine, incoming: "defer" });
    const restored = await restoreIntoQemu(snapshot, destination, {
      capabilities: { "postcopy-preempt": preemptTo },
      flags: preemptTo ? ["--preempt"] : [],
    });
    expect(restored.urgentChannel).toBe(preemptTo);
    await expectCountsOn(destination, before);
  });
}

/**
 * As a QEMU is started every day, with its default devices and network: their sections have other
 * numbers than those of a bare machine, and RAM's must be none of them.
 */
for (const version of QEMU_VERSIONS) {
  requireOrSkip(needQemuVersion(version), needUserfaultfd())(
    `QEMU ${version} with a user network to snapshot and back: the guest counts on`,
    async () => {
      await using directory = new TemporaryDirectory("matrix");
      const snapshot = directory.file("guest");
      const how = {
        program: qemuProgram(version),
        machine: machineOf(version),
        extraArguments: ["-nic", "user,model=e1000", "-vga", "std"],
      };
      await using source = await startQemu(how);
      await enablePostcopy(source);
      await source.waitForRounds(3);
      const before = await source.readCount();
      await captureQemu(source, snapshot);
      await using destination = await startQemu({ ...how, incoming: "defer" });
      await restoreIntoQemu(snapshot, destination);
      await expectCountsOn(destination, before);
    },
  );
}
