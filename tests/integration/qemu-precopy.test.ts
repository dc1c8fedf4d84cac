/**
 * A QEMU that completes in precopy is kept as well, with the capability postcopy-ram and without,
 * and comes back by postcopy. What a capability would make wrong is refused, and who a guest is
 * stays known. docs/qemu.md is the table of these tests.
 */
import { expect } from "bun:test";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { analyseSnapshot } from "../helpers/analysis.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { HUGE_PAGE_BYTES, HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  captureInPrecopy,
  enablePostcopy,
  expectCountsOn,
  hasteToComplete,
  restoreIntoQemu,
} from "../helpers/qemu-snapshot.ts";
import {
  QEMU_VERSIONS,
  machineOf,
  needQemuVersion,
  qemuProgram,
} from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { restoreStream, saveQemu } from "../helpers/saved-guest.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const needs = (version: QemuVersion): ReturnType<typeof requireOrSkip> => {
  return requireOrSkip(needQemuVersion(version), needUserfaultfd());
};

const how = (version: QemuVersion) => ({
  program: qemuProgram(version),
  machine: machineOf(version),
});

/** A QEMU whose guest counts, with capabilities on. */
async function startCounting(
  version: QemuVersion,
  capabilities: Record<string, boolean> = {},
  extraArguments: readonly string[] = [],
): Promise<Qemu> {
  const qemu = await startQemu({ ...how(version), extraArguments });
  await qemu.setCapabilities({ events: true, ...capabilities });
  await qemu.waitForRounds(2);
  return qemu;
}

/** `info status` of a QEMU. */
async function statusOf({ qmp }: Qemu): Promise<string> {
  return (await qmp.execute<{ status: string }>("query-status")).status;
}

const UUID = "5ca1ab1e-0000-4000-8000-0123456789ab";
const OTHER_UUID = "deadbeef-0000-4000-8000-0123456789ab";

/** A QEMU that refuses a snapshot; what it says in its own words. */
async function refusalOf(snapshot: string, destination: Qemu): Promise<string> {
  await enablePostcopy(destination);
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  await using source = startSource({ to, guest: `snapshot:${snapshot}` });
  const { exitCode, stderr } = await source.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 1 });
  await destination.program.finish();
  return destination.program.stderr.text;
}

/** What analyze tells of a snapshot whose devices are described. */
async function expectDescribed(snapshot: string, uuid: string | null): Promise<void> {
  expect(statSync(`${snapshot}/vm-description.json`).mode & 0o777).toBe(0o600);
  const analysis = await analyseSnapshot(snapshot);
  expect(analysis).toMatchObject({ complete: true, uuid, devices: { described: true } });
  expect(analysis.descriptionBytes).toBeGreaterThan(1000);
  const sections = analysis.devices?.sections ?? [];
  expect(sections.map(({ name }) => name)).toContain("cpu");
  expect(sections.every(({ proven }) => proven)).toBe(true);
}

for (const version of QEMU_VERSIONS) {
  const back = `QEMU ${version} to snapshot and back`;

  needs(version)(`${back}, completing in precopy with validate-uuid: it counts on`, async () => {
    await using directory = new TemporaryDirectory("precopy");
    const snapshot = directory.file("guest");
    const capabilities = { "postcopy-ram": true, "validate-uuid": true };
    await using source = await startCounting(version, capabilities, ["-uuid", UUID]);
    const before = await source.readCount();
    await captureInPrecopy(source, snapshot);
    expect(await statusOf(source)).toBe("postmigrate");
    await expectDescribed(snapshot, UUID);
    const restored = { ...how(version), incoming: "defer" };
    await using other = await startQemu({ ...restored, extraArguments: ["-uuid", OTHER_UUID] });
    expect(await refusalOf(snapshot, other)).toContain(`${UUID} and local is ${OTHER_UUID}`);
    await using same = await startQemu({ ...restored, extraArguments: ["-uuid", UUID] });
    await restoreIntoQemu(snapshot, same);
    await expectCountsOn(same, before);
    expect(same.program.stderr.text).not.toContain("UUID");
  });

  needs(version)(`${back}, without the capability postcopy-ram: it counts on`, async () => {
    await using directory = new TemporaryDirectory("precopy");
    const snapshot = directory.file("guest");
    await using source = await startCounting(version);
    const before = await source.readCount();
    await captureInPrecopy(source, snapshot);
    expect(await statusOf(source)).toBe("postmigrate");
    await expectDescribed(snapshot, null);
    await using destination = await startQemu({ ...how(version), incoming: "defer" });
    await restoreIntoQemu(snapshot, destination);
    await expectCountsOn(destination, before);
  });

  needs(version)(
    `QEMU ${version} with x-ignore-shared is refused, and its guest goes on`,
    async () => {
      await using directory = new TemporaryDirectory("shared");
      const snapshot = directory.file("guest");
      await using source = await startCounting(version, { "x-ignore-shared": true });
      await using dest = await startDest({ guest: `snapshot:${snapshot}` });
      await source.qmp.execute("migrate", { uri: dest.peer });
      const { exitCode, error, report } = await dest.end();
      expect({ exitCode, code: error?.code }).toEqual({
        exitCode: 1,
        code: "UNSUPPORTED_CAPABILITY",
      });
      expect(error?.message).toContain("x-ignore-shared");
      // Before any page.
      expect(report.pages.total).toBe(0);
      await source.waitForMoreSerial(3);
    },
  );
}

needs("7.2")("a stream of QEMU 7.2 with validate-uuid back in it, with its uuid", async () => {
  await using directory = new TemporaryDirectory("uuid");
  const file = directory.file("guest");
  const before = await saveQemu({
    ...{ version: "7.2", uri: `exec:cat>${file}`, capabilities: { "validate-uuid": true } },
    extraArguments: ["-uuid", UUID],
  });
  // By the pass that makes the index, and by the index.
  for (const _ of ["made", "read"]) {
    const { qemuSaid } = await restoreStream(file, "7.2", before);
    expect(qemuSaid).toContain(`UUID is received ${UUID}`);
  }
});

/** A machine that does not describe its devices ends its stream by closing the connection. */
needs("7.2")("QEMU 7.2 with suppress-vmdesc is kept when it closes the connection", async () => {
  await using directory = new TemporaryDirectory("vmdesc");
  const snapshot = directory.file("guest");
  const machine = `${machineOf("7.2")},suppress-vmdesc=on`;
  await using source = await startQemu({ machine });
  await source.setCapabilities({ events: true });
  await source.waitForRounds(2);
  const before = await source.readCount();
  await captureInPrecopy(source, snapshot);
  expect(existsSync(`${snapshot}/vm-description.json`)).toBe(false);
  await using destination = await startQemu({ machine, incoming: "defer" });
  await restoreIntoQemu(snapshot, destination);
  await expectCountsOn(destination, before);
});

/** A QEMU that completes in precopy, towards a directory in which its device state finds no place. */
async function failAtTheEnd(source: Qemu, snapshot: string): Promise<string> {
  await hasteToComplete(source);
  await using dest = await startDest({ guest: `snapshot:${snapshot}` });
  await source.qmp.execute("migrate-set-parameters", { "max-bandwidth": 50 * 2 ** 20 });
  await source.qmp.execute("migrate", { uri: dest.peer });
  await dest.event("guest");
  mkdirSync(`${snapshot}/package.bin`);
  await hasteToComplete(source);
  const { exitCode, error, stderr } = await dest.end();
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "CANNOT_STORE" });
  expect(existsSync(`${snapshot}/manifest.json`)).toBe(false);
  return stderr;
}

for (const version of QEMU_VERSIONS) {
  const title = `QEMU ${version} completes in precopy and is not kept: its guest goes on`;
  needs(version)(title, async () => {
    await using directory = new TemporaryDirectory("fail");
    await using told = await startCounting(version, { "return-path": true });
    const first = await failAtTheEnd(told, directory.file("told"));
    expect(first).toContain("The guest did not start here: it is the source's to go on with");
    await told.waitForMigration("failed");
    await told.waitForMoreSerial(3);
    // The same QEMU, now without a way to be told.
    await told.setCapabilities({ "return-path": false });
    const second = await failAtTheEnd(told, directory.file("untold"));
    expect(second).toContain("cont lets the guest go on");
    await waitUntil(async () => (await statusOf(told)) === "postmigrate", "postmigrate");
    await told.qmp.execute("cont");
    await told.waitForMoreSerial(3);
  });
}

const HUGE_PAGES = 32;

/** Memory of that name, in huge pages or not. */
function memory(huge: boolean): string[] {
  const kind = huge
    ? `memory-backend-memfd,id=m0,size=64M,hugetlb=on,hugetlbsize=${HUGE_PAGE_BYTES}`
    : "memory-backend-ram,id=m0,size=64M";
  return ["-object", kind, "-machine", "memory-backend=m0"];
}

/** Without ADVISE the stream does not say which blocks have huge pages. */
for (const version of ["7.2", "11.1"] as const) {
  requireOrSkip(
    needQemuVersion(version),
    needUserfaultfd(),
    needHugePages(HUGE_PAGES),
  )(
    `QEMU ${version} with huge pages, without postcopy-ram, comes back in small pages alone`,
    async () => {
      await using directory = new TemporaryDirectory("huge");
      const snapshot = directory.file("guest");
      await using _pool = await HugePages.add(HUGE_PAGES);
      const restored = { ...how(version), incoming: "defer" };
      let before;
      {
        await using source = await startCounting(version, {}, memory(true));
        before = await source.readCount();
        await captureInPrecopy(source, snapshot);
      }
      {
        await using huge = await startQemu({ ...restored, extraArguments: memory(true) });
        expect(await refusalOf(snapshot, huge)).toContain(
          "Postcopy needs matching RAM page sizes (s=1000 d=201000)",
        );
      }
      await using small = await startQemu({ ...restored, extraArguments: memory(false) });
      await restoreIntoQemu(snapshot, small);
      await expectCountsOn(small, before);
    },
  );
}
