/**
 * A link that breaks while a kept guest is sent to a QEMU, and a source that is killed meanwhile:
 * the guest finishes whole. QEMU has to be told to listen again, as it does nothing by itself.
 */
import { afterAll, expect } from "bun:test";
import { closeSync, openSync, readSync, writeSync } from "node:fs";

import { DEFAULT_RANGE } from "../helpers/boot-sector.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { breakAndMend, startDriven } from "../helpers/driven-qemu.ts";
import { Link } from "../helpers/link.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  captureQemu,
  enablePostcopy,
  expectCountsOn,
  restoreIntoQemu,
} from "../helpers/qemu-snapshot.ts";
import { QEMU_VERSIONS, needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const place = new TemporaryDirectory("recover");
afterAll(() => place[Symbol.asyncDispose]());

/** Slow enough that most of the guest is still missing when the link is cut; it asks for the rest. */
const SLOW = ["--max-postcopy-bandwidth", "16MiB/s"];

const kept = new Map<QemuVersion, Promise<{ directory: string; before: Count }>>();

/** A snapshot of the counting guest in a QEMU of that version; made once. */
async function keptBy(version: QemuVersion): Promise<{ directory: string; before: Count }> {
  const made =
    kept.get(version) ??
    (async () => {
      const directory = place.file(`kept-${version}`);
      await using source = await startQemu({ program: qemuProgram(version) });
      await enablePostcopy(source);
      await source.waitForRounds(3);
      const before = await source.readCount();
      await captureQemu(source, directory);
      return { directory, before };
    })();
  kept.set(version, made);
  return await made;
}

/** A QEMU that waits for the guest, and where. */
async function startIncoming(version: QemuVersion, preempt: boolean): Promise<[Qemu, string]> {
  const qemu = await startQemu({
    program: qemuProgram(version),
    incoming: "defer",
    outOfBand: true,
  });
  await enablePostcopy(qemu, preempt ? { "postcopy-preempt": true } : {});
  return [qemu, `tcp:127.0.0.1:${await qemu.listen()}`];
}

/** Waits until the guest runs there; before that a broken link is the end of it. */
async function runs(qemu: Qemu): Promise<void> {
  await qemu.qmp.waitForEvent("RESUME");
}

/** Has a QEMU that is paused for the `time`th time listen again; where. */
async function recover(qemu: Qemu, time = 1): Promise<string> {
  await waitUntil(() => {
    const paused = qemu.qmp.events.filter(({ data }) => data["status"] === "postcopy-paused");
    return paused.length >= time;
  }, "a paused QEMU");
  await qemu.qmp.execute("migrate-recover", { uri: "tcp:127.0.0.1:0" });
  const reply = await qemu.qmp.execute<{ "socket-address"?: { port: string }[] }>("query-migrate");
  return `tcp:127.0.0.1:${reply["socket-address"]?.[0]?.port}`;
}

for (const version of QEMU_VERSIONS) {
  for (const preempt of [false, true]) {
    const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
    const how = preempt ? ", with preempt" : "";
    test(`a link to QEMU ${version} that breaks${how}: the source goes on by itself`, async () => {
      const { directory, before } = await keptBy(version);
      const [qemu, peer] = await startIncoming(version, preempt);
      await using destination = qemu;
      await using link = await Link.start(peer);
      const flags = [...SLOW, ...(preempt ? ["--preempt"] : [])];
      await using source = startSource({ to: link.uri, guest: `snapshot:${directory}`, flags });
      await runs(destination);
      link.cut();
      await source.phase("paused");
      link.mend(await recover(destination));
      const { exitCode, stderr, report } = await source.end();
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      expect(stderr).toContain("a QEMU there has to be told: migrate_recover");
      expect(report).toMatchObject({ outcome: "completed", recoveries: 1, urgentChannel: preempt });
      await destination.waitForMigration("completed");
      await expectCountsOn(destination, before);
    });
  }
}

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a source of QEMU ${version} that is killed is started again with --resume`, async () => {
    const { directory, before } = await keptBy(version);
    const [qemu, to] = await startIncoming(version, false);
    await using destination = qemu;
    const guest = `snapshot:${directory}`;
    await using source = startSource({ to, guest, flags: SLOW });
    await runs(destination);
    source.program.kill("SIGKILL");
    await source.program.finish();
    await using again = startSource({ to: await recover(destination), guest, flags: ["--resume"] });
    const { exitCode, stderr, report } = await again.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report).toMatchObject({ outcome: "completed", recoveries: 0 });
    await destination.waitForMigration("completed");
    await expectCountsOn(destination, before);
  });
}

/** Changes one byte of a file, or changes it back. */
function flip(file: string, at: number): void {
  const fd = openSync(file, "r+");
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 1;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
}

const newTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());

newTest("a damaged page: QEMU 11.1 waits for it, and has it once it was put right", async () => {
  const { directory, before } = await keptBy("11.1");
  const [qemu, to] = await startIncoming("11.1", false);
  await using destination = qemu;
  const file = `${directory}/ram-0.bin`;
  // The last page that the guest writes, and so asks for, in each of its rounds.
  const at = DEFAULT_RANGE.endAddress - 4096;
  const guest = `snapshot:${directory}`;
  flip(file, at);
  await using source = startSource({ to, guest });
  const first = await source.end();
  await using resumed = startSource({
    to: await recover(destination),
    guest,
    flags: ["--resume", "--recover-timeout", "0"],
  });
  const second = await resumed.end();
  flip(file, at);
  for (const { exitCode, error } of [first, second]) {
    expect(exitCode).toBe(1);
    expect(error?.message).toContain(`the page at ${at} of ram-0.bin (pc.ram) does not have its`);
    expect(error?.hints.join()).toContain("put the file right first");
  }
  await using again = startSource({
    to: await recover(destination, 2),
    guest,
    flags: ["--resume"],
  });
  const { exitCode, stderr } = await again.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await destination.waitForMigration("completed");
  await expectCountsOn(destination, before);
});

/** QEMU 7.2 ends itself when a link breaks in the middle of a recovery: 9.1 mended that. */
for (const version of ["10.0", "11.1"] as const) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a link to QEMU ${version} that breaks again in the middle of the recovery`, async () => {
    const { directory, before } = await keptBy(version);
    const [qemu, peer] = await startIncoming(version, false);
    await using destination = qemu;
    await using link = await Link.start(peer);
    await using source = startSource({ to: link.uri, guest: `snapshot:${directory}`, flags: SLOW });
    await runs(destination);
    link.cut();
    link.mendUntilAnswer(await recover(destination));
    link.mend(await recover(destination, 2));
    const { exitCode, stderr, events, report } = await source.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report).toMatchObject({ outcome: "completed", recoveries: 1 });
    expect(link.connections).toBeGreaterThanOrEqual(3);
    const percents = events.flatMap((event) =>
      event.event === "progress" ? [event.percent ?? 0] : [],
    );
    expect(percents).toEqual(percents.toSorted((one, other) => one - other));
    await destination.waitForMigration("completed");
    await expectCountsOn(destination, before);
  });
}

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

oldTest("a source whose patience is over says so, and another one finishes the move", async () => {
  const { directory, before } = await keptBy("7.2");
  const [qemu, peer] = await startIncoming("7.2", false);
  await using destination = qemu;
  await using link = await Link.start(peer);
  const guest = `snapshot:${directory}`;
  const flags = [...SLOW, "--recover-timeout", "300ms"];
  await using source = startSource({ to: link.uri, guest, flags });
  await runs(destination);
  link.cut();
  const { exitCode, error } = await source.end();
  expect(exitCode).toBe(1);
  // Whether the last try came to be connected before the link was reset is luck.
  expect(error?.message).toMatch(
    /guest is at the destination|what the destination has stays there/,
  );
  expect(error?.hints.join()).toContain("by the same command with --resume");
  await using again = startSource({ to: await recover(destination), guest, flags: ["--resume"] });
  expect(await again.end()).toMatchObject({ exitCode: 0 });
  await destination.waitForMigration("completed");
  await expectCountsOn(destination, before);
});

oldTest("--resume to a QEMU that is not paused changes nothing there", async () => {
  const { directory } = await keptBy("7.2");
  const [qemu, to] = await startIncoming("7.2", false);
  await using _destination = qemu;
  const guest = `snapshot:${directory}`;
  const flags = ["--resume", "--recover-timeout", "0"];
  await using source = startSource({ to, guest, flags });
  const { exitCode, error } = await source.end();
  expect(exitCode).toBe(1);
  expect(error?.hints.join()).toContain("migrate_recover");
});

/** Slow enough that the link can be cut before QEMU has pushed everything. */
const QEMU_SLOW = { "max-postcopy-bandwidth": 2 * 1024 * 1024 };

for (const version of QEMU_VERSIONS) {
  for (const preempt of [false, true]) {
    const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
    const how = preempt ? ", with preempt" : "";
    test(`a link from QEMU ${version} that breaks${how}: the guest is kept whole`, async () => {
      await using directory = new TemporaryDirectory("recover");
      const snapshot = directory.file("guest");
      const program = qemuProgram(version);
      await using source = await startQemu({ program, outOfBand: true });
      await enablePostcopy(source, { "postcopy-preempt": preempt });
      await source.qmp.execute("migrate-set-parameters", QEMU_SLOW);
      await source.waitForRounds(3);
      const before = await source.readCount();
      await using dest = await startDest({ guest: `snapshot:${snapshot}` });
      await using link = await Link.start(dest.peer);
      await source.qmp.execute("migrate", { uri: link.uri });
      await source.qmp.execute("migrate-start-postcopy");
      await dest.phase("postcopy");
      // From 10.2 on a source takes its guest back when the link breaks before it is in this state.
      await source.waitForMigration("postcopy-active");
      link.cut();
      await dest.phase("paused");
      await source.waitForMigration("postcopy-paused");
      link.mend(dest.peer);
      await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
      await source.qmp.execute("migrate", { uri: link.uri, resume: true });
      const { exitCode, stderr, report } = await dest.end();
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      expect(stderr).toContain("waiting for the source to resume");
      expect(report).toMatchObject({ outcome: "completed", completedIn: "postcopy" });
      await source.waitForMigration("completed");
      await using destination = await startQemu({ program, incoming: "defer" });
      await restoreIntoQemu(snapshot, destination);
      await expectCountsOn(destination, before);
    });
  }
}

for (const version of QEMU_VERSIONS) {
  for (const preempt of [false, true]) {
    const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
    const how = preempt ? ", with preempt" : "";
    test(`a link between QEMUs ${version} that are driven${how}: both go on by themselves`, async () => {
      const program = qemuProgram(version);
      const name = `driven-${version}-${preempt}`;
      const [from, sourceGuest] = await startDriven(place, `${name}-source`, { program });
      await using source = from;
      const [to, destGuest] = await startDriven(place, `${name}-dest`, {
        program,
        incoming: "defer",
      });
      await using destination = to;
      await source.waitForRounds(3);
      const before = await source.readCount();
      const flags = preempt ? ["--preempt"] : [];
      await using receiving = await startDest({ guest: destGuest, flags });
      await using link = await Link.start(receiving.peer);
      await using sending = startSource({
        to: link.uri,
        guest: sourceGuest,
        flags: [...flags, ...SLOW, "--switchover", "now"],
      });
      await breakAndMend(
        link,
        { qemu: source, role: sending },
        { qemu: destination, role: receiving },
      );
      await expectCountsOn(destination, before);
      const { running } = await source.qmp.execute<{ running: boolean }>("query-status");
      expect(running).toBe(false);
    });
  }
}
