/**
 * Recoveries of a QEMU source that fail themselves, as QEMU's own tests have them (double-failures):
 * nobody is where it connects to, and the link dies in the handshake. It is back to paused each time,
 * and nothing of the guest is lost.
 */
import { expect } from "bun:test";

import { waitUntil } from "../helpers/deadline.ts";
import { Link } from "../helpers/link.ts";
import { startDest } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  enablePostcopy,
  expectCountsOn,
  restoreIntoQemu,
  waitForPrecopyRound,
} from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

/** Slow enough that the link can be cut before QEMU has pushed everything. */
const QEMU_SLOW = { "max-postcopy-bandwidth": 2 * 1024 * 1024 };

/** Has the source recover over `uri`, and waits until it is paused for the `time`th time. */
async function recoverInVain(source: Qemu, uri: string, time: number): Promise<void> {
  // That nobody is there QEMU says at once, or in the state it is in afterwards.
  await source.qmp.execute("migrate", { uri, resume: true }).catch(() => undefined);
  await pausedFor(source, time);
}

async function pausedFor(source: Qemu, time: number): Promise<void> {
  await waitUntil(async () => {
    const { status } = await source.qmp.execute<{ status: string }>("query-migrate");
    const pauses = source.qmp.events.filter(({ data }) => data["status"] === "postcopy-paused");
    return status === "postcopy-paused" && pauses.length >= time;
  }, `the source to be paused ${time} times`);
}

interface Case {
  version: QemuVersion;
  capabilities?: Record<string, boolean>;
}

/** QEMU 7.2 ends itself when a link breaks in the middle of a recovery: 9.1 mended that. */
const CASES: readonly Case[] = [
  { version: "10.0" },
  { version: "11.1", capabilities: { multifd: true, "postcopy-preempt": true } },
];

for (const { version, capabilities = {} } of CASES) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  const on = Object.keys(capabilities);
  const how = on.length === 0 ? "" : ` (${on.join(", ")})`;
  test(`QEMU ${version}${how}, whose recovery fails twice, is kept whole`, async () => {
    await using directory = new TemporaryDirectory("again");
    const snapshot = directory.file("guest");
    const program = qemuProgram(version);
    await using source = await startQemu({ program, outOfBand: true });
    await enablePostcopy(source, capabilities);
    await source.qmp.execute("migrate-set-parameters", QEMU_SLOW);
    await source.waitForRounds(3);
    const before = await source.readCount();
    await using dest = await startDest({ guest: `snapshot:${snapshot}` });
    await using link = await Link.start(dest.peer);
    await source.qmp.execute("migrate", { uri: link.uri });
    await waitForPrecopyRound(source, 1);
    await source.qmp.execute("migrate-start-postcopy");
    await dest.phase("postcopy");
    // From 10.2 on a source takes its guest back when the link breaks before it is in this state.
    await source.waitForMigration("postcopy-active");
    link.cut();
    await dest.phase("paused");
    await pausedFor(source, 1);
    await recoverInVain(source, `unix:${directory.file("nobody")}`, 2);
    link.mendUntilAnswer(dest.peer);
    await recoverInVain(source, link.uri, 3);
    link.mend(dest.peer);
    await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
    await source.qmp.execute("migrate", { uri: link.uri, resume: true });
    const { exitCode, stderr, report } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report).toMatchObject({ outcome: "completed", completedIn: "postcopy" });
    await source.waitForMigration("completed");
    await using destination = await startQemu({ program, incoming: "defer" });
    await restoreIntoQemu(snapshot, destination);
    await expectCountsOn(destination, before);
  });
}
