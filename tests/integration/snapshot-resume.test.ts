/**
 * The end of a destination that keeps a guest, by kill -9 or by its storage. Before the switch the
 * guest stays where it is; after it the source waits, and another destination takes the rest.
 */
import { expect } from "bun:test";
import { existsSync, readdirSync } from "node:fs";

import { surveySnapshot } from "../../src/analyze/snapshot-survey.ts";
import { buildBootSector } from "../helpers/boot-sector.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needStrace, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { enablePostcopy, expectCountsOn, restoreIntoQemu } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { withFaults } from "../helpers/traced-calls.ts";

const resumeTest = requireOrSkip(needUserfaultfd());
const faultTest = requireOrSkip(needUserfaultfd(), needStrace());

const SIZE = "12MiB";
const COUNT = pages(SIZE);
const GUEST = `stress:size=${SIZE},zero=0,duration=100ms`;
const AT_ONCE = ["--switchover", "now"];

/** Waits until pages have come in postcopy. */
async function pagesCame(dest: DestRole): Promise<void> {
  await dest.phase("postcopy");
  await dest.event("progress", ({ phase, percent }) => phase === "postcopy" && (percent ?? 0) > 0);
}

/** Brings a kept stress guest back and checks all of it. */
async function expectKept(directory: string): Promise<void> {
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, guest: `snapshot:${directory}` });
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
  expect(got.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
}

resumeTest("killed in precopy: the guest stays, and the next one clears away", async () => {
  await using directory = new TemporaryDirectory("resume");
  const path = directory.file("guest");
  await using dest = await startDest({ guest: `snapshot:${path}` });
  const flags = ["--switchover", "after=1h", "--max-bandwidth", "8MiB/s"];
  await using source = startSource({ to: dest.peer, guest: GUEST, flags });
  // Its files are there.
  await dest.event("guest");
  dest.program.kill();
  const { exitCode, stayed } = await source.end();
  expect({ exitCode, stayed }).toMatchObject({ exitCode: 1, stayed: { pagesWrong: 0 } });
  await using next = await startDest({ guest: `snapshot:${path}` });
  await next.event("warning", ({ code }) => code === "HALF_SNAPSHOT");
  expect(readdirSync(path)).toEqual([]);
});

/** Ended by kill -9 at the call of that number that writes pages behind the switch. */
function killedAt(path: string, call: number): string[] {
  return withFaults([`pwrite64:signal=KILL:when=${call}`], { paths: [`${path}/ram-0.bin`] });
}

faultTest("killed in postcopy, twice: --resume takes the rest of a waiting source", async () => {
  await using directory = new TemporaryDirectory("resume");
  const path = directory.file("guest");
  const listen = `unix:${directory.file("socket")}`;
  const guest = `snapshot:${path}`;
  // A call writes up to 32 pages, so it takes 96 of them at least.
  await using first = await startDest({ guest, listen, before: killedAt(path, 40) });
  await using source = startSource({ to: listen, guest: GUEST, flags: AT_ONCE });
  await first.program.finish();
  await source.phase("paused");
  const again = { guest, listen, flags: ["--resume"] };
  await using second = await startDest({ ...again, before: killedAt(path, 20) });
  await second.program.finish();
  await using third = await startDest(again);
  const [sent, got] = await Promise.all([source.end(), third.end()]);
  expect({ exitCode: sent.exitCode, stderr: sent.stderr }).toMatchObject({ exitCode: 0 });
  expect({ exitCode: got.exitCode, stderr: got.stderr }).toMatchObject({ exitCode: 0 });
  // What the first two had taken was not asked for again.
  expect(got.report.pages.missing).toBeLessThan(COUNT);
  expect(existsSync(`${path}/arrival.json`)).toBe(false);
  await expectKept(path);
});

resumeTest(
  "given up in postcopy: the rest is its source's, and the command for it is said",
  async () => {
    await using directory = new TemporaryDirectory("resume");
    const path = directory.file("guest");
    const file = directory.file("report.json");
    await using dest = await startDest({ guest: `snapshot:${path}`, flags: ["--report", file] });
    const slow = [...AT_ONCE, "--max-postcopy-bandwidth", "256KiB/s"];
    await using source = startSource({ to: dest.peer, guest: GUEST, flags: slow });
    await dest.event("running");
    dest.program.kill("SIGINT");
    await dest.program.stderr.waitForLine(/are not: ending now leaves them to its source/);
    dest.program.kill("SIGINT");
    const { exitCode, stderr, report } = await dest.end();
    expect(exitCode).toBe(130);
    expect(report).toMatchObject({ outcome: "abandoned", phase: "postcopy", snapshot: null });
    expect(await Bun.file(file).json()).toEqual(report);
    expect(stderr).toContain("pages never came. Its source waits and has all of it: do not end it");
    expect(stderr).toContain(`dest --guest snapshot:${path} --listen tcp:127.0.0.1:0 --resume`);
    expect(existsSync(`${path}/arrival.json`)).toBe(true);
    // Another destination may go on with it.
    await source.phase("paused");
  },
);

/** A small guest: 24 MiB that it counts in. */
const RANGE = { startAddress: 0x10_0000, endAddress: 0x190_0000 };
const SMALL = { memoryMib: 32, bootSector: buildBootSector(RANGE) };
const SLOW_QEMU = { "max-postcopy-bandwidth": 2 * 2 ** 20 };
const FAST_QEMU = { "max-postcopy-bandwidth": 0 };

/** The guest that QEMU had at `before` is whole in a snapshot: it counts on in another QEMU. */
async function expectKeptQemu(path: string, version: QemuVersion, before: Count): Promise<void> {
  const program = qemuProgram(version);
  await using qemu = await startQemu({ ...SMALL, program, incoming: "defer" });
  await restoreIntoQemu(path, qemu);
  await expectCountsOn(qemu, before, RANGE);
}

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

oldTest("killed in postcopy: QEMU 7.2 sends the rest to another process", async () => {
  await using directory = new TemporaryDirectory("resume");
  const path = directory.file("guest");
  await using source = await startQemu({ ...SMALL, program: qemuProgram("7.2") });
  await source.waitForRounds(2);
  const before = await source.readCount(RANGE);
  await enablePostcopy(source);
  await source.qmp.execute("migrate-set-parameters", SLOW_QEMU);
  await using dest = await startDest({ guest: `snapshot:${path}` });
  await source.qmp.execute("migrate", { uri: dest.peer });
  await source.qmp.execute("migrate-start-postcopy");
  await pagesCame(dest);
  dest.program.kill();
  await source.waitForMigration("postcopy-paused");
  await using next = await startDest({ guest: `snapshot:${path}`, flags: ["--resume"] });
  await next.phase("paused");
  await source.qmp.execute("migrate-set-parameters", FAST_QEMU);
  await source.qmp.execute("migrate", { uri: next.peer, resume: true });
  const { exitCode, stderr, report, events } = await next.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  // It is said who came back, and what was here when it did.
  expect(report.peer).toMatch(/^tcp:127\.0\.0\.1:\d+$/);
  expect(events).toContainEqual(expect.objectContaining({ event: "connected", peer: report.peer }));
  const last = events.findLast((each) => each.event === "progress");
  expect(last?.arrivedPages).toBe(report.pages.total - report.pages.missing);
  await source.waitForMigration("completed");
  await expectKeptQemu(path, "7.2", before);
});

const newTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd(), needStrace());

/** From 10.2 on: it has not heard yet that its device state is here. */
newTest("killed before the device state is durable: QEMU 11.1 takes its guest back", async () => {
  await using directory = new TemporaryDirectory("resume");
  const path = directory.file("guest");
  await using source = await startQemu({ ...SMALL, program: qemuProgram("11.1") });
  await source.waitForRounds(2);
  await enablePostcopy(source);
  const paths = [`${path}/package.bin`];
  const before = withFaults(["fsync:signal=KILL:when=1"], { paths });
  await using dest = await startDest({ guest: `snapshot:${path}`, before });
  await source.qmp.execute("migrate", { uri: dest.peer });
  await source.qmp.execute("migrate-start-postcopy");
  await dest.program.finish();
  await source.waitForMoreSerial(3);
  expect(readdirSync(path)).not.toContain("arrival.json");
});

newTest("killed in postcopy: QEMU 11.1 behind --keep is kept, and goes on", async () => {
  await using directory = new TemporaryDirectory("resume");
  const path = directory.file("guest");
  const listen = `unix:${directory.file("socket")}`;
  const monitor = directory.file("monitor");
  const extraArguments = ["-qmp", `unix:${monitor},server=on,wait=off`];
  await using qemu = await startQemu({ ...SMALL, program: qemuProgram("11.1"), extraArguments });
  await qemu.waitForRounds(2);
  const before = await qemu.readCount(RANGE);
  await using dest = await startDest({ guest: `snapshot:${path}`, listen });
  const flags = ["--keep", "--switchover", "now", "--max-postcopy-bandwidth", "2MiB/s"];
  await using source = startSource({ to: listen, guest: `qemu:${monitor}`, flags });
  await pagesCame(dest);
  dest.program.kill();
  await source.phase("paused");
  await using next = await startDest({ guest: `snapshot:${path}`, listen, flags: ["--resume"] });
  await qemu.qmp.execute("migrate-set-parameters", FAST_QEMU);
  const [sent, got] = await Promise.all([source.end(), next.end()]);
  expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(sent.stderr).toContain("The guest goes on here");
  await qemu.waitForMoreSerial(1);
  await expectKeptQemu(path, "11.1", before);
});

/** Storage that fails behind the switch, at a call of strace, and what is said of it. */
const FAILURES = [
  {
    what: "EIO in postcopy",
    fault: "pwrite64:error=EIO:when=20",
    says: /ram-0\.bin cannot be stored in .*: pwrite\(.*ram-0\.bin, \d+ bytes at \d+\) failed: EIO/,
    left: /The guest was taken over and is no whole snapshot: [\d,]+ of its pages never came/,
  },
  {
    what: "EIO of fsync at the end",
    fault: "fsync:error=EIO:when=1",
    says: /ram-0\.bin cannot be stored in .*: fsync\(.*ram-0\.bin\) failed: EIO, input\/output error/,
    left: /All of the guest came, but it could not be made durable/,
  },
];

for (const { what, fault, says, left } of FAILURES) {
  faultTest(`${what}: no snapshot, and --resume takes the rest`, async () => {
    await using directory = new TemporaryDirectory("resume");
    const path = directory.file("guest");
    const listen = `unix:${directory.file("socket")}`;
    const before = withFaults([fault], { paths: [`${path}/ram-0.bin`] });
    await using dest = await startDest({ guest: `snapshot:${path}`, listen, before });
    await using source = startSource({ to: listen, guest: GUEST, flags: AT_ONCE });
    const failed = await dest.end();
    expect(failed).toMatchObject({ exitCode: 1, error: { code: "CANNOT_STORE" } });
    expect(failed.error?.message).toMatch(says);
    const warning = failed.events.find((event) => event.event === "warning");
    expect(warning).toMatchObject({ code: "GUEST_AT_SOURCE" });
    expect(warning?.message).toMatch(left);
    expect(warning?.message).toContain(`--guest snapshot:${path} --listen ${listen} --resume`);
    expect(existsSync(`${path}/manifest.json`)).toBe(false);
    await using next = await startDest({ guest: `snapshot:${path}`, listen, flags: ["--resume"] });
    const [sent, got] = await Promise.all([source.end(), next.end()]);
    expect({ exitCode: got.exitCode, stderr: got.stderr }).toMatchObject({ exitCode: 0 });
    expect(sent.exitCode).toBe(0);
    expect(surveySnapshot(path, { verify: true, progress: () => {} }).problems).toEqual([]);
  });
}

faultTest("EIO at the switch: the guest stays, and nothing is left to be resumed", async () => {
  await using directory = new TemporaryDirectory("resume");
  const path = directory.file("guest");
  const paths = [`${path}/package.bin`];
  const before = withFaults(["fsync:error=EIO:when=1"], { paths });
  await using dest = await startDest({ guest: `snapshot:${path}`, before });
  await using source = startSource({ to: dest.peer, guest: GUEST, flags: AT_ONCE });
  const [sent, failed] = await Promise.all([source.end(), dest.end()]);
  expect(failed).toMatchObject({ exitCode: 1, error: { code: "CANNOT_STORE" } });
  expect(failed.error?.message).toContain("package.bin) failed: EIO");
  expect(failed.error?.hints).toEqual(["its disk fails: keep the guest in another directory"]);
  expect(failed.stderr).toContain("The guest did not start here: it is the source's to go on with");
  expect(sent).toMatchObject({ exitCode: 1, stayed: { pagesChecked: COUNT, pagesWrong: 0 } });
  expect(readdirSync(path)).not.toContain("arrival.json");
});
