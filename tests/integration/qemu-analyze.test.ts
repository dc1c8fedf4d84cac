/**
 * What `analyze` says of streams of real QEMUs, beside what those QEMUs say themselves: their RAM
 * blocks, their counts of pages, and the names of their devices. docs/qemu.md is the table of these
 * tests.
 */
import { expect } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import type { StreamAnalysis } from "../../src/report/analysis.ts";
import { analyseSnapshot, analyseStream, runAnalyze } from "../helpers/analysis.ts";
import { buildBootSector } from "../helpers/boot-sector.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { HELD_PUSH_BYTES, hurryOnceAsked } from "../helpers/driven-qemu.ts";
import { HUGE_PAGE_BYTES, HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { libvirtSave } from "../helpers/libvirt-save.ts";
import { startDest } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  COMPRESS,
  enablePostcopy,
  slowPrecopy,
  waitForPrecopyRound,
} from "../helpers/qemu-snapshot.ts";
import {
  machineOf,
  needQemuVersion,
  qemuProgram,
  QEMU_VERSIONS,
} from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu, QemuOptions } from "../helpers/qemu.ts";
import { saveQemu } from "../helpers/saved-guest.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { StreamRecorder } from "../helpers/stream-recorder.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

/** The program takes some 65 MiB, whatever it reads. */
const MEMORY_BYTES_MAX = 100 * 1024 * 1024;

/** One whose stream has twice as many bytes; how many the program takes is no matter of versions. */
const LARGE_GUEST: QemuOptions = {
  memoryMib: 128,
  bootSector: buildBootSector({ startAddress: 0x10_0000, endAddress: 0x640_0000 }),
};

/** Some of each kind, so that device state is large and of variable length, and ROMs are many. */
const DEVICES = [
  ...["VGA", "e1000", "rtl8139", "virtio-net-pci", "virtio-scsi-pci", "lsi53c895a", "qemu-xhci"],
  ...["usb-tablet", "virtio-balloon-pci", "virtio-serial-pci", "virtio-rng-pci", "intel-hda"],
].flatMap((device) => ["-device", device]);

/** What a QEMU counts of a migration that has completed. */
interface QemuCounts {
  ram: { normal: number; duplicate: number; total: number };
}

/** Name, page size and used length of every RAM block, as QEMU's monitor lists them. */
async function ramBlocksOf(qemu: Qemu): Promise<{ name: string; bytes: number }[]> {
  const text = await qemu.qmp.execute<string>("human-monitor-command", {
    "command-line": "info ramblock",
  });
  return text
    .split("\n")
    .map((line) => /^ *(\S+) +(\d+) (\w)iB +0x\w+ +(0x\w+) +0x/.exec(line))
    .filter((match) => match !== null)
    .map(([, name = "", , , used]) => ({ name, bytes: Number(used) }));
}

/** Saves the guest into a file, in rounds, and lets it go on. */
async function saveInRounds(qemu: Qemu, uri: string): Promise<void> {
  await slowPrecopy(qemu);
  await qemu.qmp.execute("migrate", { uri });
  await waitForPrecopyRound(qemu, 2);
  await qemu.qmp.execute("migrate-set-parameters", {
    "max-bandwidth": 0,
    "downtime-limit": 20_000,
  });
  await qemu.waitForMigration("completed");
}

/** Records what the guest's QEMU sends when it is switched over to postcopy in its second round. */
async function recordPostcopy(qemu: Qemu, file: string, snapshot: string): Promise<void> {
  await enablePostcopy(qemu);
  await slowPrecopy(qemu);
  await using dest = await startDest({ guest: `snapshot:${snapshot}` });
  await using recorder = await StreamRecorder.start(dest.peer, file);
  const from = qemu.qmp.events.length;
  await qemu.qmp.execute("migrate", { uri: recorder.uri });
  await waitForPrecopyRound(qemu, 2);
  await qemu.qmp.execute("migrate-start-postcopy");
  const { exitCode, stderr } = await dest.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await qemu.waitForMigration("completed", { from });
  await recorder.finish();
}

/** What QEMU counts, and what lies in the stream, are the same. */
async function expectCounted(qemu: Qemu, analysis: StreamAnalysis): Promise<void> {
  const { ram } = await qemu.qmp.execute<QemuCounts>("query-migrate");
  expect(analysis.records).toMatchObject({ normal: ram.normal, zero: ram.duplicate });
  expect(analysis.blocks.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(ram.total);
  expect(analysis.blocks.map(({ name, bytes }) => ({ name, bytes }))).toEqual(
    await ramBlocksOf(qemu),
  );
  expect(
    analysis.blocks.every(({ pageSize, pagesMissing }) => pageSize === 4096 && pagesMissing === 0),
  ).toBe(true);
  expect(analysis.repeatedAfterSwitch).toBe(0);
  expect(analysis.notes).toEqual([]);
}

/** Every byte of the stream belongs to one part; the last is that of EOF. */
function expectAllBytes({ bytes, fileBytes }: StreamAnalysis): void {
  const { opening, commands, ram, devices, description } = bytes;
  expect(opening + commands + ram + bytes.package + devices + description + 1).toBe(bytes.total);
  expect(bytes.total).toBe(fileBytes ?? -1);
}

/** The stream is read through a window: most of what the program holds is the program itself. */
async function expectLittleMemory(file: string): Promise<void> {
  expect(statSync(file).size).toBeGreaterThan(2 * MEMORY_BYTES_MAX);
  await using program = spawn(postcopyCommand("analyze", "--quiet", file));
  let peakBytes = 0;
  await waitUntil(() => {
    peakBytes = peakMemory(program.pid) ?? peakBytes;
    return !program.running;
  }, "the end of analyze");
  expect(await program.finish()).toMatchObject({ exitCode: 0 });
  expect(peakBytes).toBeGreaterThan(0);
  expect(peakBytes).toBeLessThan(MEMORY_BYTES_MAX);
}

/** The most that a process has held so far; undefined once it has ended. */
function peakMemory(pid: number): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

function namesOf({ devices }: StreamAnalysis): string[] {
  const sections = devices?.sections ?? [];
  expect(sections.every(({ proven }) => proven)).toBe(true);
  expect(sections.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(devices?.bytes ?? -1);
  return sections.map(({ name, instanceId }) => `${name} ${instanceId}`);
}

const needs = (...versions: QemuVersion[]): ReturnType<typeof requireOrSkip> => {
  return requireOrSkip(...versions.map(needQemuVersion), needUserfaultfd());
};

for (const version of QEMU_VERSIONS) {
  needs(version)(
    `analyze tells what QEMU ${version} saved, and what it sent in postcopy`,
    async () => {
      await using directory = new TemporaryDirectory("analyze");
      const extraArguments = ["-smp", "2", ...DEVICES];
      const large = version === "7.2" ? LARGE_GUEST : {};
      await using qemu = await startQemu({
        program: qemuProgram(version),
        extraArguments,
        ...large,
      });
      await qemu.setCapabilities({ events: true });
      await qemu.waitForRounds(2);
      const saved = directory.file("saved");
      await saveInRounds(qemu, `exec:cat>${saved}`);
      const precopy = await analyseStream(saved);
      expect(precopy).toMatchObject({
        ...{ complete: true, problem: null, ending: "precopy", machineType: machineOf(version) },
        ...{ package: null, advise: null, returnPath: false, capabilities: [] },
        devices: { where: "stream", described: true },
      });
      await expectCounted(qemu, precopy);
      expectAllBytes(precopy);
      if (large === LARGE_GUEST) await expectLittleMemory(saved);
      expect(precopy.rounds.map(({ phase }) => phase).slice(-2)).toEqual(["precopy", "stopped"]);

      await qemu.qmp.execute("cont");
      const sent = directory.file("sent");
      const snapshot = directory.file("snapshot");
      await recordPostcopy(qemu, sent, snapshot);
      const postcopy = await analyseStream(sent);
      expect(postcopy).toMatchObject({
        ...{ complete: true, problem: null, ending: "postcopy", machineType: machineOf(version) },
        ...{ advise: { pageSizeSummary: 4096, targetPageSize: 4096 }, returnPath: true },
        devices: { where: "package", described: null },
      });
      await expectCounted(qemu, postcopy);
      expectAllBytes(postcopy);
      // What is discarded at the switch is what is sent after it.
      const last = postcopy.rounds.at(-1);
      expect(last?.phase).toBe("postcopy");
      const { normal = 0, zero = 0 } = last?.records ?? {};
      expect((normal + zero) * 4096).toBe(postcopy.discards.bytes);
      // The devices are those that the description of the saved stream lists.
      expect(namesOf(postcopy)).toEqual(namesOf(precopy));
      const kept = await analyseSnapshot(snapshot);
      expect(kept.devices?.sections.map(({ name }) => name)).toEqual(
        postcopy.devices?.sections.map(({ name }) => name) ?? [],
      );
      const pings = postcopy.steps.filter(({ what }) => what === "PING");
      const inPackage = version === "11.1" ? ["3", "66"] : ["3"];
      expect(pings.map(({ detail }) => detail)).toEqual(["1", "2", ...inPackage, "4"]);
      await expectDamageNamed(sent, postcopy);
    },
  );
}

/** Copies that are cut off, and one with a flipped byte, say where, and tell all that is before. */
async function expectDamageNamed(file: string, whole: StreamAnalysis): Promise<void> {
  const bytes = readFileSync(file);
  const damaged = `${file}.damaged`;
  const packageAt = whole.package?.at ?? 0;
  const postcopyAt = whole.rounds.at(-1)?.at ?? 0;
  const cuts = [whole.steps[3]?.at ?? 0, packageAt + 5000, postcopyAt + 70_000, bytes.length - 1];
  for (const length of cuts) {
    writeFileSync(damaged, bytes.subarray(0, length));
    const { exitCode, analysis, error } = await runAnalyze(damaged);
    expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "TRUNCATED" });
    expect(error?.message).toContain(`at byte ${length} of`);
    expect(analysis).toMatchObject({ complete: false, machineType: whole.machineType });
    if (analysis?.kind !== "stream" || length < packageAt) continue;
    expect(analysis.blocks.map(({ name }) => name)).toEqual(whole.blocks.map(({ name }) => name));
    const known = analysis.devices?.sections.filter(({ proven }) => proven) ?? [];
    expect(known.length).toBeGreaterThan(3);
    expect(whole.devices?.sections.slice(0, known.length)).toEqual(known);
  }
  bytes[postcopyAt + 7] = 0xff;
  writeFileSync(damaged, bytes);
  const { exitCode, error, analysis } = await runAnalyze(damaged);
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "BAD_FLAGS" });
  expect(error?.message).toContain(`at byte ${postcopyAt} of`);
  expect(analysis).toMatchObject({ devices: whole.devices, ending: "postcopy" });
}

for (const version of ["10.0", "11.1"] as const) {
  needs(version)(`analyze tells what lies in a mapped-ram file of QEMU ${version}`, async () => {
    await using directory = new TemporaryDirectory("analyze");
    const file = directory.file("guest");
    const head = libvirtSave({ format: "sparse", xml: "<domain>mapped</domain>" });
    writeFileSync(file, head);
    const uri = `file:${file},offset=${head.length}`;
    await saveQemu({ version, uri, capabilities: { "mapped-ram": true } });
    const analysis = await analyseStream(file);
    expect(analysis).toMatchObject({
      ...{ complete: true, ending: "precopy", capabilities: ["mapped-ram"], rounds: [] },
      libvirt: { format: "sparse", xml: "<domain>mapped</domain>", streamAt: head.length },
      devices: { described: true },
    });
    // The guest counts in 43 MiB, and the rest of its memory is mostly zeros.
    expect(analysis.records.normal).toBeGreaterThan(11_008);
    expect(analysis.records.normal).toBeLessThan(12_000);
    expect(namesOf(analysis)).toContain("globalstate 0");
  });
}

for (const version of QEMU_VERSIONS) {
  needs(version)(
    `analyze tells addresses and the uuid that QEMU ${version} was given`,
    async () => {
      await using directory = new TemporaryDirectory("analyze");
      const file = directory.file("guest");
      const uuid = "5ca1ab1e-0000-4000-8000-0123456789ab";
      const capabilities = { "x-ignore-shared": true, "validate-uuid": true };
      await saveQemu({
        ...{ version, capabilities },
        uri: `exec:cat>${file}`,
        extraArguments: ["-uuid", uuid],
      });
      const analysis = await analyseStream(file);
      expect(analysis).toMatchObject({
        ...{ complete: true, uuid },
        capabilities: ["x-ignore-shared"],
      });
      const addresses = new Map(
        analysis.blocks.map(({ name, guestPhysicalAddress }) => [name, guestPhysicalAddress]),
      );
      expect(addresses.get("pc.ram")).toBe(0);
      // The BIOS of 256 KiB ends where 32 bits end.
      expect(addresses.get("pc.bios")).toBe(2 ** 32 - 256 * 1024);
    },
  );
}

/** Slow enough that the guest asks for pages before they come by themselves. */
const SLOW_PUSH = { "max-postcopy-bandwidth": 64 * 1024 * 1024 };
/** The same, whatever the machine: until one was asked for. */
const HELD_PUSH = { "max-postcopy-bandwidth": HELD_PUSH_BYTES };

/** A migration between two QEMUs, whose main channel is recorded and analysed. */
async function moveRecorded(
  how: QemuOptions,
  capabilities: Record<string, boolean>,
): Promise<{ analysis: StreamAnalysis; sentPages: number }> {
  await using directory = new TemporaryDirectory("analyze");
  await using source = await startQemu(how);
  await using destination = await startQemu({ ...how, incoming: "defer" });
  await enablePostcopy(source, capabilities);
  await enablePostcopy(destination, capabilities);
  await slowPrecopy(source);
  const isHeld = capabilities["postcopy-preempt"] === true;
  await source.qmp.execute("migrate-set-parameters", isHeld ? HELD_PUSH : SLOW_PUSH);
  await source.waitForRounds(2);
  const file = directory.file("sent");
  const peer = `tcp:127.0.0.1:${await destination.listen()}`;
  await using recorder = await StreamRecorder.start(peer, file);
  await source.qmp.execute("migrate", { uri: recorder.uri });
  await waitForPrecopyRound(source, 2);
  await source.qmp.execute("migrate-start-postcopy");
  if (isHeld) await hurryOnceAsked(source);
  await source.waitForMigration("completed");
  await destination.waitForMigration("completed");
  await recorder.finish();
  const analysis = await analyseStream(file);
  expect(analysis).toMatchObject({ complete: true, ending: "postcopy", repeatedAfterSwitch: 0 });
  expectAllBytes(analysis);
  expect(namesOf(analysis)).toContain("globalstate 0");
  const { ram } = await source.qmp.execute<QemuCounts>("query-migrate");
  return { analysis, sentPages: ram.normal + ram.duplicate };
}

function missingOf({ blocks }: StreamAnalysis): number {
  return blocks.reduce((sum, { pagesMissing }) => sum + (pagesMissing ?? 0), 0);
}

for (const version of QEMU_VERSIONS) {
  const name = `analyze tells the main channel of QEMU ${version} with postcopy-preempt`;
  needs(version)(name, async () => {
    const how = { program: qemuProgram(version) };
    const { analysis, sentPages } = await moveRecorded(how, { "postcopy-preempt": true });
    // Pages that the guest asked for travelled on the other channel.
    const { normal, zero } = analysis.records;
    const missing = missingOf(analysis);
    expect(missing).toBeGreaterThan(0);
    expect(normal + zero + missing).toBe(sentPages);
    expect(analysis.notes.join()).toContain("another channel (postcopy-preempt)");
  });
}

needs("11.1")("analyze tells the main channel of QEMU 11.1 with multifd", async () => {
  const { analysis } = await moveRecorded({ program: qemuProgram("11.1") }, { multifd: true });
  expect(analysis.multifdFlushes).toBeGreaterThan(0);
  expect(missingOf(analysis)).toBeGreaterThan(0);
  expect(analysis.notes.join()).toContain("multifd channels");
});

/** Two guests of 64 MiB in pages of 2 MiB. */
const HUGE_PAGES = 64;
const HUGE = ["-object", "memory-backend-memfd,id=m0,size=64M,hugetlb=on,hugetlbsize=2M"];

for (const version of QEMU_VERSIONS) {
  requireOrSkip(
    needQemuVersion(version),
    needUserfaultfd(),
    needHugePages(HUGE_PAGES),
  )(`analyze tells the huge pages of QEMU ${version}`, async () => {
    await using _pages = await HugePages.add(HUGE_PAGES);
    const how = { program: qemuProgram(version), extraArguments: HUGE };
    const { analysis } = await moveRecorded({ ...how, machine: "pc,memory-backend=m0" }, {});
    expect(analysis.advise?.pageSizeSummary).toBe(HUGE_PAGE_BYTES + 4096);
    const [ram, ...roms] = analysis.blocks;
    expect(ram).toMatchObject({ bytes: 64 * 2 ** 20, pageSize: HUGE_PAGE_BYTES });
    expect(roms.every(({ pageSize }) => pageSize === 4096)).toBe(true);
    expect((ram?.discards.bytes ?? 1) % HUGE_PAGE_BYTES).toBe(0);
    expect(missingOf(analysis)).toBe(0);
  });
}

/** Holds all pages of the guest. */
const XBZRLE = { "xbzrle-cache-size": 256 * 1024 * 1024 };

for (const version of QEMU_VERSIONS) {
  needs(version)(`analyze tells the xbzrle pages of QEMU ${version}`, async () => {
    await using directory = new TemporaryDirectory("analyze");
    const file = directory.file("guest");
    const options = { capabilities: { xbzrle: true }, parameters: XBZRLE, round: 3 };
    await saveQemu({ version, uri: `exec:cat>${file}`, ...options });
    const { records, complete } = await analyseStream(file);
    expect(complete).toBe(true);
    expect(records.xbzrle).toBeGreaterThan(0);
  });
}

needs("7.2")("analyze tells what QEMU 7.2 compressed, in a zstd image of libvirt", async () => {
  await using directory = new TemporaryDirectory("analyze");
  const file = directory.file("guest");
  await saveQemu({ version: "7.2", uri: `exec:cat>${file}`, ...COMPRESS });
  const packed = directory.file("guest.save");
  const head = libvirtSave({ format: "zstd", xml: "<domain/>", wasRunning: false });
  const body = Bun.zstdCompressSync(readFileSync(file), { level: 1 });
  writeFileSync(packed, Buffer.concat([head, body]));
  const analysis = await analyseStream(packed);
  expect(analysis).toMatchObject({ complete: true, compression: "zstd", ending: "precopy" });
  expect(analysis.libvirt).toMatchObject({ wasRunning: false, xml: "<domain/>" });
  expect(analysis.records.compressed).toBeGreaterThan(10_000);
  writeFileSync(packed, Buffer.concat([head, body.subarray(0, body.length / 2)]));
  const { exitCode, error, analysis: half } = await runAnalyze(packed);
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "TRUNCATED" });
  expect(half).toMatchObject({ complete: false, blocks: [{ name: "pc.ram" }, {}, {}, {}, {}, {}] });
});
