/**
 * The test fixture itself, before anything is tested with it: the boot-sector guest runs in an
 * unmodified QEMU, counts, moves by post-copy to a second QEMU, and counts on there with every page
 * right. If this fails, failures of the interoperability tests say nothing about postcopy.
 */
import { expect } from "bun:test";

import { hasCountedOn } from "../helpers/memory-pattern.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { startQemu } from "../helpers/qemu.ts";
import { enablePostcopy } from "../helpers/qemu-snapshot.ts";
import {
  QEMU_VERSIONS,
  machineOf,
  needQemuVersion,
  qemuProgram,
} from "../helpers/qemu-versions.ts";

for (const version of QEMU_VERSIONS) {
  requireOrSkip(needQemuVersion(version), needUserfaultfd())(
    `the guest counts on after QEMU ${version} has moved it by post-copy`,
    async () => {
      const how = { program: qemuProgram(version), machine: machineOf(version) };
      await using source = await startQemu(how);
      await using destination = await startQemu({ ...how, incoming: "defer" });
      for (const qemu of [source, destination]) await enablePostcopy(qemu);
      await source.waitForRounds(3);
      const before = await source.readCount();

      const port = await destination.listen();
      await source.qmp.execute("migrate", { uri: `tcp:127.0.0.1:${port}` });
      await source.qmp.execute("migrate-start-postcopy");
      await source.waitForMigration("postcopy-active");
      await source.waitForMigration("completed");
      await destination.waitForMigration("completed");

      const after = await destination.readCount();
      expect(hasCountedOn(before, after)).toBe(true);
      await destination.waitForMoreSerial(3);
      expect(hasCountedOn(after, await destination.readCount())).toBe(true);
    },
  );
}
