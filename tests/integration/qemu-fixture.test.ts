/**
 * The test fixture itself, before anything is tested with it: the boot-sector guest runs in an
 * unmodified QEMU, counts, moves by post-copy to a second QEMU, and counts on there with every page
 * right. If this fails, failures of the interoperability tests say nothing about postcopy.
 */
import { expect } from "bun:test";

import { hasCountedOn } from "../helpers/memory-pattern.ts";
import { needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { startQemu } from "../helpers/qemu.ts";

const qemuTest = requireOrSkip(needQemu(), needUserfaultfd());

qemuTest(
  "the guest counts, and goes on counting after QEMU has moved it by post-copy",
  async () => {
    await using source = await startQemu();
    await using destination = await startQemu({ incoming: "defer" });
    for (const qemu of [source, destination]) {
      await qemu.setCapabilities({ events: true, "postcopy-ram": true });
    }
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
