/**
 * The whole way through an unmodified QEMU: a running guest is captured by post-copy into a
 * snapshot, and comes back, running, in another QEMU. The guest's own memory is the check: it
 * increments one byte a page for ever, so all bytes are within one step of each other.
 */
import { expect } from "bun:test";
import { existsSync } from "node:fs";

import { hasCountedOn } from "../helpers/memory-pattern.ts";
import { needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const qemuTest = requireOrSkip(needQemu(), needUserfaultfd());

/** Captures a running QEMU into a directory; returns what dest reported. */
async function capture(source: Qemu, directory: string): Promise<Record<string, unknown>> {
  const words = ["dest", "--json", "--guest", `snapshot:${directory}`];
  await using dest = spawn(postcopyCommand(...words, "--listen", "tcp:127.0.0.1:0"));
  let report: Record<string, unknown> = {};
  for await (const event of dest.events()) {
    if (event["event"] === "listening") {
      await source.qmp.execute("migrate", { uri: String(event["peer"]) });
      await source.qmp.execute("migrate-start-postcopy");
    }
    if (event["event"] === "report") report = event["report"] as Record<string, unknown>;
  }
  const { exitCode, stderr } = await dest.finish();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await source.waitForMigration("completed");
  return report;
}

qemuTest("QEMU to snapshot to QEMU: the guest counts on, and no page is wrong", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const snapshot = directory.file("guest");
  await using source = await startQemu();
  await source.setCapabilities({ events: true, "postcopy-ram": true });
  await source.waitForRounds(3);
  const before = await source.readCount();
  const captured = await capture(source, snapshot);
  expect(captured).toMatchObject({ role: "dest", outcome: "completed" });
  expect(existsSync(`${snapshot}/manifest.json`)).toBe(true);

  await using destination = await startQemu({ incoming: "defer" });
  await destination.setCapabilities({ events: true, "postcopy-ram": true });
  const port = await destination.listen();
  await using restore = spawn(
    postcopyCommand(
      "source",
      "--json",
      "--guest",
      `snapshot:${snapshot}`,
      "--to",
      `tcp:127.0.0.1:${port}`,
    ),
  );
  const { exitCode, stderr } = await restore.finish();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await destination.waitForMigration("completed");
  const after = await destination.readCount();
  expect(hasCountedOn(before, after)).toBe(true);
  await destination.waitForMoreSerial(3);
  expect(hasCountedOn(after, await destination.readCount())).toBe(true);
});
