/**
 * `source --run` is killed while the guest's memory is on its way: the guest waits in the QEMU that
 * was started for it. It is not started a second time, and the same command with --resume finishes it.
 */
import { afterAll, expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";

import { isAlive, processAt } from "../../src/util/processes.ts";
import type { ProcessIdentity } from "../../src/util/processes.ts";
import { buildBootSector } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";
import { LONG_TEST_MS, waitUntil } from "../helpers/deadline.ts";
import { checkPattern, hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { runPostcopy } from "../helpers/postcopy-run.ts";
import { captureQemu, enablePostcopy, hasteToComplete } from "../helpers/qemu-snapshot.ts";
import {
  machineOf,
  needQemuVersion,
  qemuPath,
  qemuProgram,
  QEMU_VERSIONS,
} from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import { QmpClient } from "../helpers/qmp.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const RANGE: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x110_0000 };
const MEMORY_MIB = 32;
/** Much is missing when the sender is killed: it is held back, and the guest, paused, asks for nothing. */
const SLOW = ["--max-postcopy-bandwidth", "256KiB/s"];

const place = new TemporaryDirectory("jrun");
afterAll(() => place[Symbol.asyncDispose](), LONG_TEST_MS);

/** The counting guest of a QEMU 7.2, as a snapshot and as a stream, and a count that it had before. */
interface Kept {
  snapshot: string;
  stream: string;
  before: Count;
}
/** Made once. */
let kept: Promise<Kept> | undefined;

async function keep(): Promise<Kept> {
  const [snapshot, stream] = [place.file("kept"), place.file("stream")];
  await using source = await startQemu({
    program: qemuProgram("7.2"),
    memoryMib: MEMORY_MIB,
    bootSector: buildBootSector(RANGE),
  });
  await source.setCapabilities({ events: true });
  await source.waitForRounds(3);
  const before = await source.readCount(RANGE);
  await hasteToComplete(source);
  await source.qmp.execute("migrate", { uri: `exec:cat>${stream}` });
  await source.waitForMigration("completed");
  await source.qmp.execute("cont");
  await enablePostcopy(source);
  await captureQemu(source, snapshot);
  return { snapshot: `snapshot:${snapshot}`, stream: `stream:${stream}`, before };
}

/** The words that start a QEMU like the one that was captured, with a monitor for the test. */
async function runWords(version: QemuVersion): Promise<string> {
  const image = place.file("boot.img");
  await Bun.write(image, buildBootSector(RANGE));
  return [
    ...[qemuPath(version), "-machine", machineOf("7.2"), "-accel tcg -m", `${MEMORY_MIB}M`],
    "-nodefaults -no-user-config -display none -no-reboot",
    `-drive if=none,id=boot,format=raw,file=${image} -device ide-hd,drive=boot,bootindex=0`,
    `-chardev file,id=com1,path=${place.file("serial")} -serial chardev:com1`,
    `-qmp unix:${place.file(`qmp-${version}`)},server=on,wait=off`,
    `-pidfile ${place.file(`qmp-${version}`)}.pid -S`,
  ].join(" ");
}

async function countIn(qmp: QmpClient): Promise<Count> {
  const { startAddress: val, endAddress } = RANGE;
  const filename = place.file("memory");
  await qmp.execute("stop");
  await qmp.execute("pmemsave", { val, size: endAddress - val, filename });
  await qmp.execute("cont");
  return checkPattern(await Bun.file(filename).bytes());
}

/** A QEMU that a command left running, by its second monitor. */
class Launched implements AsyncDisposable {
  readonly qmp: QmpClient;
  readonly process: ProcessIdentity;

  constructor(qmp: QmpClient, process: ProcessIdentity) {
    this.qmp = qmp;
    this.process = process;
  }

  get pid(): number {
    return this.process.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    // It would outlive a test that has failed.
    if (isAlive(this.process)) process.kill(this.pid, "SIGKILL");
  }
}

/** Waits for a QEMU that is being started. */
async function launched(path: string): Promise<Launched> {
  const qmp = await waitUntil(
    async () => await QmpClient.connect(path).catch(() => undefined),
    "the monitor of a QEMU",
  );
  const found = processAt(Number(readFileSync(`${path}.pid`, "utf8")));
  if (found === undefined) throw new Error("QEMU has ended");
  return new Launched(qmp, found);
}

async function statusOf(qmp: QmpClient): Promise<string> {
  return (await qmp.execute<{ status: string }>("query-status")).status;
}

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion("7.2"), needQemuVersion(version), needUserfaultfd());
  test(`--run into QEMU ${version}, killed: not run twice, and finished by --resume`, async () => {
    const { snapshot, stream, before } = await (kept ??= keep());
    const journal = place.file(`journal-${version}`);
    const command = await runWords(version);
    // What is served makes no difference; one of them is a stream.
    const guest = version === "10.0" ? stream : snapshot;
    const words = ["source", "--guest", guest, "--run", command];
    const noted = ["--journal", journal];
    await using program = spawn(postcopyCommand(...words, "--json", ...noted, ...SLOW), {
      environment: { TMPDIR: place.path },
    });
    await using monitor = await launched(place.file(`qmp-${version}`));
    const { qmp, pid } = monitor;
    // Before that it is not there yet, and a QEMU that loses its source ends.
    await waitUntil(async () => (await statusOf(qmp)) === "paused", "a guest that has arrived");
    program.kill("SIGKILL");
    await program.finish();

    const refused = await runPostcopy([...words, ...noted]);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(
      `was handed to the QEMU that was started for it (process ${pid})`,
    );
    expect(refused.stderr).toContain("--resume; or send another copy");

    const resumed = await runPostcopy([...words, ...noted, "--resume"]);
    expect({ exitCode: resumed.exitCode, stderr: resumed.stderr }).toMatchObject({ exitCode: 0 });
    expect(resumed.stderr).toContain(`The guest is whole in QEMU, process ${pid}`);
    expect(readdirSync(journal)).toEqual([]);
    // Nothing of ours stays beside it.
    expect(readdirSync(place.path).filter((name) => name.startsWith("postcopy-"))).toEqual([]);
    await qmp.execute("cont");
    const first = await countIn(qmp);
    expect(hasCountedOn(before, first)).toBe(true);
    await waitUntil(async () => hasCountedOn(first, await countIn(qmp)), "a guest that counts");
    await qmp.execute("quit");
    await waitUntil(() => !isAlive(monitor.process), "the end of QEMU");
    if (version !== "7.2") return;
    // There is none any more that waits, so the command does what it did at first.
    const nothing = await runPostcopy([...words, ...noted, "--resume"]);
    expect(nothing.stderr).toContain("waits for the rest of the guest");
  });
}
