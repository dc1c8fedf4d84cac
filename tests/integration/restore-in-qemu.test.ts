/** `source --run`: one command starts a QEMU, restores a kept guest in it, and leaves it running. */
import { afterAll, expect } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { workingSetPath } from "../../src/guests/snapshot/layout.ts";
import { buildBootSector, DEFAULT_RANGE } from "../helpers/boot-sector.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { checkPattern, hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { captureQemu, enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { runPostcopy, sourceReportOf } from "../helpers/postcopy-run.ts";
import type { PostcopyRun } from "../helpers/postcopy-run.ts";
import {
  machineOf,
  needQemuVersion,
  qemuPath,
  qemuProgram,
  QEMU_VERSIONS,
} from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { saveQemu } from "../helpers/saved-guest.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { QmpClient } from "../helpers/qmp.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());
const place = new TemporaryDirectory("run");
afterAll(async () => {
  endQemus();
  await place[Symbol.asyncDispose]();
});

/** Where the QEMU of that name writes its pid. */
function pidFileOf(name: string): string {
  return place.file(`${name}.pid`);
}

/** What a test that failed has left running would keep a core busy for ever. */
function endQemus(): void {
  for (const file of new Bun.Glob("*.pid").scanSync({ cwd: place.path, absolute: true })) {
    const pid = readFileSync(file, "utf8").trim();
    // It may have been killed, and its number be another's.
    const commandLine = `/proc/${pid}/cmdline`;
    if (!existsSync(commandLine) || !readFileSync(commandLine, "latin1").includes(file)) continue;
    process.kill(Number(pid), "SIGKILL");
  }
}

/** A snapshot of the counting guest in a QEMU of that version; made once. */
const snapshots = new Map<QemuVersion, Promise<string>>();

async function snapshotOf(version: QemuVersion): Promise<string> {
  const made =
    snapshots.get(version) ??
    (async () => {
      const directory = place.file(`kept-${version}`);
      await using source = await startQemu({ program: qemuProgram(version) });
      await makeSnapshot(source, directory);
      return directory;
    })();
  snapshots.set(version, made);
  return await made;
}

async function makeSnapshot(source: Qemu, directory: string): Promise<void> {
  await enablePostcopy(source);
  await source.waitForRounds(3);
  await captureQemu(source, directory);
}

interface Machine {
  version: QemuVersion;
  /** Tells the QEMUs of one test apart. */
  name: string;
  machine?: string;
  memory?: string;
  extra?: string;
}

/** The words that start a QEMU like the one that was captured, with a monitor for the test. */
async function runWords({ version, name, machine = "pc", memory = "64M", extra = "" }: Machine) {
  const image = place.file(`${name}.img`);
  await Bun.write(image, buildBootSector());
  const words = [
    ...[qemuPath(version), "-machine", machine, "-accel", "tcg", "-m", memory],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-drive", `if=none,id=boot,format=raw,file='${image}'`],
    ...["-device", "ide-hd,drive=boot,bootindex=0"],
    ...[
      "-chardev",
      `file,id=com1,path='${place.file(`${name}.serial`)}'`,
      "-serial",
      "chardev:com1",
    ],
    ...["-qmp", `unix:'${place.file(name)}',server=on,wait=off`],
    ...["-pidfile", `'${pidFileOf(name)}'`],
  ];
  return `${words.join(" ")} ${extra}`;
}

/** The count of the guest in a QEMU that a command left running. */
async function countIn(qmp: QmpClient, name: string): Promise<Count> {
  const bytes = DEFAULT_RANGE.endAddress - DEFAULT_RANGE.startAddress;
  const filename = place.file(`${name}.memory`);
  await qmp.execute("stop");
  await qmp.execute("pmemsave", { val: DEFAULT_RANGE.startAddress, size: bytes, filename });
  await qmp.execute("cont");
  return checkPattern(await Bun.file(filename).bytes());
}

/** Capabilities that a restore needs for its time. */
const OURS = new Set(["events", "postcopy-ram", "postcopy-preempt", "postcopy-blocktime"]);

/** What a command left running: no capability is on, and the guest counts on. Ends that QEMU. */
async function expectToCountOn(name: string, monitor?: QmpClient): Promise<void> {
  await using opened = monitor === undefined ? await QmpClient.connect(place.file(name)) : null;
  const qmp = monitor ?? opened;
  if (qmp === null) throw new Error("no monitor");
  const capabilities = await qmp.execute<{ capability: string; state: boolean }[]>(
    "query-migrate-capabilities",
  );
  expect(capabilities.filter(({ capability, state }) => state && OURS.has(capability))).toEqual([]);
  const first = await countIn(qmp, name);
  await waitUntil(async () => hasCountedOn(first, await countIn(qmp, name)), "a guest that counts");
  await qmp.execute("quit");
}

/** Where these programs put what is temporary: a directory of the test's own, to look into. */
const temporary = place.file("temporary");
mkdirSync(temporary);

/** Runs postcopy so; nothing may be left in there. */
async function runAlone(...[words, see]: Parameters<typeof runPostcopy>): Promise<PostcopyRun> {
  const run = await runPostcopy(words, see, { TMPDIR: temporary });
  expect(readdirSync(temporary)).toEqual([]);
  return run;
}

/** So slowly that the guest asks for some pages, however late QEMU gets it going. */
const PUSH_RATE = ["--max-postcopy-bandwidth", "32MiB/s"];

const PAIRS: [from: QemuVersion, to: QemuVersion][] = [
  ["7.2", "7.2"],
  ["10.0", "10.0"],
  ["11.1", "11.1"],
  ["7.2", "10.0"],
  ["7.2", "11.1"],
];

for (const [from, to] of PAIRS) {
  const test = requireOrSkip(needQemuVersion(from), needQemuVersion(to), needUserfaultfd());
  test(`a guest kept of QEMU ${from} runs again in QEMU ${to}, by one command`, async () => {
    const name = `q${from}-${to}`;
    const directory = await snapshotOf(from);
    // Of restores in other tests: what they asked for would be there before it is asked for.
    rmSync(workingSetPath(directory), { force: true });
    const command = await runWords({ version: to, name, machine: machineOf(from) });
    const words = ["source", "--guest", `snapshot:${directory}`, "--run", command];
    const run = await runAlone([...words, ...PUSH_RATE]);
    const report = sourceReportOf(run);
    expect(run.events.some(({ event }) => event === "running")).toBe(true);
    expect(report.outcome).toBe("completed");
    // Which QEMU has which capability is QEMU's affair; these three have the preempt channel.
    expect(report.urgentChannel).toBe(true);
    expect(report.qemu?.version.startsWith(`${to}.`)).toBe(true);
    expect(report.qemu?.status).toBe("completed");
    expect(report.times.toRunning).toBeGreaterThan(report.qemu?.startMs ?? Infinity);
    expect(report.times.toDrained).toBeGreaterThan(report.times.toRunning ?? Infinity);
    expect(report.requests.received).toBeGreaterThan(0);
    expect(run.stderr).toContain(
      `in QEMU, process ${readFileSync(pidFileOf(name), "utf8").trim()}\n`,
    );
    // 10.1 and later say how long each fault took.
    expect((report.qemu?.latencyBuckets ?? null) !== null).toBe(to === "11.1");
    await expectToCountOn(name);
  });
}

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a stream of QEMU ${version} runs again in it, by one command`, async () => {
    const name = `stream-${version}`;
    const file = place.file(`${name}.stream`);
    await saveQemu({ version, uri: `exec:cat>${file}` });
    const command = await runWords({ version, name, machine: machineOf(version) });
    const run = await runAlone(["source", "--guest", `stream:${file}`, "--run", command]);
    const report = sourceReportOf(run);
    expect(report).toMatchObject({ outcome: "completed", qemu: { status: "completed" } });
    expect(report.times.toRunning).toBeGreaterThan(report.qemu?.startMs ?? Infinity);
    expect(run.stderr).toContain(" in the QEMU of --run");
    await expectToCountOn(name);
  });
}

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`the second restore in QEMU ${version} replays what the first one asked for`, async () => {
    const directory = place.file(`replayed-${version}`);
    cpSync(await snapshotOf(version), directory, { recursive: true });
    const record = workingSetPath(directory);
    // Of restores in other tests.
    rmSync(record, { force: true });
    const restore = async (name: string, ...extra: string[]) => {
      const command = await runWords({ version, name, machine: machineOf(version) });
      const words = ["source", "--guest", `snapshot:${directory}`, "--run", command, ...extra];
      const report = sourceReportOf(await runPostcopy(words));
      await expectToCountOn(name);
      return report;
    };
    const first = await restore(`first-${version}`);
    expect(first.workingSet).toBeNull();
    const recorded = readFileSync(record);
    const second = await restore(`second-${version}`, "--no-record");
    expect(readFileSync(record).equals(recorded)).toBe(true);
    expect(second.workingSet?.pages).toBe((recorded.length - 20) / 8);
    expect(second.workingSet?.toInPlaceMs).toBeGreaterThan(second.qemu?.startMs ?? Infinity);
    expect(second.workingSet?.toInPlaceMs).toBeLessThanOrEqual(second.times.toDrained ?? 0);
  });
}

/** Of one snapshot, at the same time. */
const CLONES = [1, 2, 3];

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`three clones of one read-only snapshot of QEMU ${version} run at the same time`, async () => {
    const directory = await snapshotOf(version);
    const names = CLONES.map((number) => `clone-${version}-${number}`);
    chmodSync(directory, 0o500);
    try {
      const runs = names.map(async (name) => {
        const command = await runWords({ version, name, machine: machineOf(version) });
        return await runPostcopy(["source", "--guest", `snapshot:${directory}`, "--run", command]);
      });
      for (const run of await Promise.all(runs)) {
        // The pages are read a few at a time: with the guest's memory it would be more.
        expect(sourceReportOf(run).memory.peakRssBytes).toBeLessThan(128 * 2 ** 20);
      }
      for (const name of names) await expectToCountOn(name);
    } finally {
      chmodSync(directory, 0o700);
    }
  });
}

oldTest("a QEMU 7.2 with the machine of a later one says so", async () => {
  const directory = await snapshotOf("11.1");
  const command = await runWords({ version: "7.2", name: "early" });
  const run = await runPostcopy(["source", "--guest", `snapshot:${directory}`, "--run", command]);
  expect(run.exitCode).toBe(1);
  expect(run.stderr).toMatch(/Machine type received is 'pc-i440fx-11.1' and local is/);
});

oldTest("a guest that is to be paused is left paused, and that is said", async () => {
  const directory = await snapshotOf("7.2");
  const command = await runWords({ version: "7.2", name: "paused", extra: "-S" });
  const run = await runPostcopy(["source", "--guest", `snapshot:${directory}`, "--run", command]);
  sourceReportOf(run);
  expect(run.stderr).toContain("The guest is whole and paused in QEMU");
  await using qmp = await QmpClient.connect(place.file("paused"));
  await qmp.execute("cont");
  await expectToCountOn("paused", qmp);
});

interface Refusal {
  name: string;
  machine: Partial<Machine>;
  says: RegExp;
}

const REFUSALS: Refusal[] = [
  { name: "other memory", machine: { memory: "256M" }, says: /Size mismatch: pc\.ram/ },
  { name: "another machine", machine: { machine: "q35" }, says: /Machine type received is/ },
  { name: "an option that is none", machine: { extra: "-no-such-option" }, says: /no-such-option/ },
  { name: "a device that is none", machine: { extra: "-device no-such" }, says: /no-such/ },
];

for (const { name, machine, says } of REFUSALS) {
  oldTest(`a QEMU with ${name} is refused in its own words`, async () => {
    const directory = await snapshotOf("7.2");
    const command = await runWords({ version: "7.2", name: "refused", ...machine });
    const run = await runAlone(["source", "--guest", `snapshot:${directory}`, "--run", command]);
    expect(run.exitCode).toBe(1);
    expect(run.stderr).toMatch(says);
    expect(run.events.at(-1)).toMatchObject({ event: "error", code: "QEMU_FAILED" });
    // How long it took to start is known of a QEMU that did.
    const startMs = run.report?.qemu?.startMs ?? null;
    expect(startMs !== null).toBe(machine.extra === undefined);
    // The QEMU that could not take the guest is gone.
    await expect(QmpClient.connect(place.file("refused"))).rejects.toThrow();
  });
}

oldTest("a QEMU that lacks a device of the guest is refused in its own words", async () => {
  const directory = place.file("kept-with-device");
  await using source = await startQemu({ extraArguments: ["-device", "virtio-rng-pci"] });
  await makeSnapshot(source, directory);
  const command = await runWords({ version: "7.2", name: "lacking" });
  const run = await runPostcopy(["source", "--guest", `snapshot:${directory}`, "--run", command]);
  expect(run.exitCode).toBe(1);
  expect(run.stderr).toMatch(
    /Unknown (savevm section or instance|section) '?0000:00:02.0\/virtio-rng/,
  );
});

oldTest(
  "a QEMU that is killed while pages are missing is told of; it can be restored",
  async () => {
    const directory = await snapshotOf("7.2");
    const command = await runWords({ version: "7.2", name: "killed" });
    const words = ["source", "--guest", `snapshot:${directory}`, "--run"];
    // What the guest does not ask for is held back, so that some is missing when it is killed.
    const slow = ["--max-postcopy-bandwidth", "1MiB/s"];
    const run = await runAlone([...words, command, ...slow], ({ event }) => {
      if (event === "running")
        process.kill(Number(readFileSync(pidFileOf("killed"), "utf8")), "SIGKILL");
    });
    expect(run.exitCode).toBe(1);
    expect(run.stderr).toContain("QEMU ended before all memory of its guest was there");
    expect(run.events.at(-1)).toMatchObject({
      ...{ event: "error", code: "QEMU_FAILED" },
      hints: ["what was kept is as it was: it can be restored again"],
    });
    const again = await runWords({ version: "7.2", name: "again" });
    sourceReportOf(await runPostcopy([...words, again]));
    await expectToCountOn("again");
  },
);

oldTest(
  "a page that is damaged is the error, and not what QEMU says of the broken link",
  async () => {
    const directory = place.file("damaged");
    cpSync(await snapshotOf("7.2"), directory, { recursive: true });
    const file = join(directory, "ram-0.bin");
    const bytes = readFileSync(file);
    const at = bytes.findLastIndex((byte) => byte !== 0);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const command = await runWords({ version: "7.2", name: "damaged-qemu" });
    const run = await runAlone(["source", "--guest", `snapshot:${directory}`, "--run", command]);
    expect(run.exitCode).toBe(1);
    expect(run.stderr).toContain("does not have its checksum");
    expect(run.stderr).not.toContain("QEMU did not take the guest");
    // That QEMU has ended, so no rest can be sent to it.
    const begins =
      "The guest was not brought back, and its QEMU was ended; what was kept is as it was";
    expect(run.stderr).toContain(`postcopy: ${begins}: The snapshot in ${directory} is damaged`);
    expect(run.report?.error?.message).toStartWith(begins);
    expect(run.stderr).toContain("then the same command begins anew, in another QEMU");
    expect(run.stderr).not.toContain("--resume");
    expect(run.stderr).not.toContain("waits for");
  },
);

oldTest("a command that cannot be run, and one with -incoming, are refused", async () => {
  const directory = await snapshotOf("7.2");
  const words = ["source", "--guest", `snapshot:${directory}`, "--run"];
  const absent = await runPostcopy([...words, "no-such-qemu -m 64M"]);
  expect(absent).toMatchObject({ exitCode: 1 });
  expect(absent.stderr).toContain("no-such-qemu: not found");
  const twice = await runPostcopy([...words, "qemu-system-x86_64 -incoming defer"]);
  expect(twice).toMatchObject({ exitCode: 2 });
  expect(twice.stderr).toContain("the command has -incoming already");
  const apart = await runPostcopy([...words, "qemu-system-x86_64 -daemonize"]);
  expect(apart).toMatchObject({ exitCode: 2 });
  expect(apart.stderr).toContain("the command has -daemonize");
});
