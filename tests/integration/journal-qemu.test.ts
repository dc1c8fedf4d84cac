/**
 * A driven QEMU whose guest has left, or whose driver was killed: what the next start says, by what
 * QEMU tells and by the journal. The guest is never run twice.
 */
import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { buildBootSector } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { RoleEnd } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu, QemuOptions } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import type { SourceReport } from "../../src/report/report.ts";

const RANGE: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x110_0000 };
const NOW = ["--switchover", "now"];
/** The driver is killed long before all is there; QEMU then goes on alone. */
const SLOW = [...NOW, "--max-postcopy-bandwidth", "256KiB/s"];
const FAST = { "max-postcopy-bandwidth": 0 };

/** A QEMU with a small guest that counts, a monitor for the test, and one to be driven by. */
class Driven implements AsyncDisposable {
  readonly qemu: Qemu;
  /** GUEST word. */
  readonly guest: string;
  readonly journal: string;
  readonly directory: TemporaryDirectory;

  private constructor(qemu: Qemu, directory: TemporaryDirectory) {
    this.qemu = qemu;
    this.directory = directory;
    this.guest = `qemu:${directory.file("qmp")}`;
    this.journal = directory.file("journal");
  }

  static async start(version: QemuVersion, options: QemuOptions = {}): Promise<Driven> {
    const directory = new TemporaryDirectory("driven");
    const qemu = await startQemu({
      ...{ program: qemuProgram(version), memoryMib: 32, bootSector: buildBootSector(RANGE) },
      extraArguments: ["-qmp", `unix:${directory.file("qmp")},server=on,wait=off`],
      ...options,
    });
    return new Driven(qemu, directory);
  }

  /** Sends the guest, to the end. */
  async send(to: string, ...flags: string[]): Promise<RoleEnd<SourceReport>> {
    await using source = this.begin(to, ...flags);
    return await source.end();
  }

  begin(to: string, ...flags: string[]) {
    return startSource({ guest: this.guest, to, flags: ["--journal", this.journal, ...flags] });
  }

  get entries(): number {
    return readdirSync(this.journal).length;
  }

  async count(): Promise<Count> {
    return await this.qemu.readCount(RANGE);
  }

  /** It goes on counting here, from `before`. */
  async expectCountsOn(before: Count): Promise<void> {
    const first = await this.count();
    expect(hasCountedOn(before, first)).toBe(true);
    await this.qemu.waitForMoreSerial(2);
    expect(hasCountedOn(first, await this.count())).toBe(true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qemu[Symbol.asyncDispose]();
    await this.directory[Symbol.asyncDispose]();
  }
}

const test = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

test("a guest that has moved is not sent again, also not after a cont", async () => {
  await using source = await Driven.start("7.2");
  await using dest = await Driven.start("7.2", { incoming: "defer" });
  await dest.qemu.setCapabilities({ events: true, "postcopy-ram": true });
  await source.qemu.waitForRounds(2);
  const to = `tcp:127.0.0.1:${await dest.qemu.listen()}`;
  expect((await source.send(to, ...NOW)).exitCode).toBe(0);
  expect(source.entries).toBe(1);
  const [entry = ""] = readdirSync(source.journal);
  expect(JSON.parse(readFileSync(join(source.journal, entry), "utf8"))).toMatchObject({
    state: "moved",
    // The kernel knows whose monitor it is.
    guest: { kind: "qemu", process: { pid: source.qemu.program.pid } },
  });
  const moved = await source.send(to, ...NOW);
  expect(moved).toMatchObject({ exitCode: 1, error: { code: "MOVED" } });
  expect(moved.error?.message).toContain(`was moved to ${to}`);
  await dest.qemu.qmp.execute("stop");
  await source.qemu.qmp.execute("cont");
  const split = await source.send(to, ...NOW);
  expect(split).toMatchObject({ exitCode: 1, error: { code: "SPLIT_BRAIN" } });
  expect(split.error?.hints.join()).toContain("--again");
  const nobody = `unix:${source.directory.file("nobody")}`;
  const again = await source.send(nobody, "--again", "--connect-timeout", "0s");
  expect(again.error?.message).toContain("the guest goes on here");
  expect(source.entries).toBe(0);
});

test("a driver killed in precopy: QEMU goes on alone, and can be told to keep the guest", async () => {
  await using source = await Driven.start("7.2");
  await using peer = await HandMadeDestination.open();
  await source.qemu.setCapabilities({ events: true });
  await source.qemu.waitForRounds(2);
  const before = await source.count();
  await using killed = source.begin(peer.peer, "--max-bandwidth", "1MiB/s");
  await killed.phase("precopy");
  killed.program.kill("SIGKILL");
  await killed.program.finish();
  const busy = await source.send(peer.peer, ...NOW);
  expect(busy).toMatchObject({ exitCode: 1, error: { code: "QEMU_BUSY" } });
  expect(busy.error?.message).toContain("QEMU goes on alone");
  expect(source.entries).toBe(1);
  await source.qemu.qmp.execute("migrate_cancel");
  await source.qemu.waitForMigration("cancelled");
  await source.expectCountsOn(before);
  // It never left, so it may be sent.
  const nobody = `unix:${source.directory.file("nobody")}`;
  const tried = await source.send(nobody, "--connect-timeout", "0s");
  expect(tried.error?.message).toContain("the guest goes on here");
  expect(source.entries).toBe(0);
});

test("a driver with --keep killed in postcopy: the next one lets the guest go on", async () => {
  await using source = await Driven.start("7.2");
  await source.qemu.setCapabilities({ events: true });
  await source.qemu.waitForRounds(2);
  const before = await source.count();
  {
    await using dest = await startDest({ guest: `snapshot:${source.directory.file("first")}` });
    await using killed = source.begin(dest.peer, "--keep", ...SLOW);
    await killed.phase("postcopy");
    killed.program.kill("SIGKILL");
    await killed.program.finish();
    const moving = await source.send(dest.peer, "--keep", ...NOW);
    expect(moving).toMatchObject({ exitCode: 1, error: { code: "MOVING" } });
    await source.qemu.qmp.execute("migrate-set-parameters", FAST);
    expect((await dest.end()).exitCode).toBe(0);
    await source.qemu.waitForMigration("completed");
  }
  const kept = await source.send("tcp:127.0.0.1:1", ...NOW);
  expect(kept).toMatchObject({ exitCode: 1, error: { code: "KEPT" } });
  await using second = await startDest({ guest: `snapshot:${source.directory.file("second")}` });
  const { exitCode, stderr } = await source.send(second.peer, "--keep", ...NOW);
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(stderr).toContain("which an earlier --keep left standing, goes on here");
  await source.expectCountsOn(before);
  expect(source.entries).toBe(0);
});
