/**
 * A driven QEMU whose peer fails, at every point before the guest may run there: the guest goes on
 * where it was, and its count shows it.
 */
import { expect } from "bun:test";

import { buildBootSector } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import type { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import { NO_RECOVERY, startSource } from "../helpers/migration.ts";
import type { RoleEnd, SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import type { SourceReport } from "../../src/report/report.ts";

const RANGE: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x110_0000 };
const PRECOPY = ["--max-bandwidth", "1MiB/s"];
const NOW = ["--switchover", "now", ...NO_RECOVERY];

/** A peer that does something to a QEMU that sends. */
type Misdeed = (peer: HandMadePeer, source: SourceRole) => void | Promise<void>;

const hangUp: Misdeed = (peer) => peer.close();
/** As a destination does, which hangs up then: QEMU 11.1 hears the message alone only at the switch. */
const refuse: Misdeed = (peer) => {
  peer.answer({ kind: "shut", status: 1 });
  peer.endWriting();
  peer.close();
};
const interrupt: Misdeed = (_, source) => source.program.kill("SIGINT");

/** Sends the guest to a peer that does `misdeed` in `phase`. */
async function send(
  guest: string,
  flags: readonly string[],
  phase: string,
  misdeed: Misdeed,
): Promise<RoleEnd<SourceReport>> {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ guest, to: server.peer, flags });
  const peer = await server.accept();
  await source.phase(phase);
  await misdeed(peer, source);
  return await source.end();
}

async function expectGoesOn(qemu: Qemu, act: () => Promise<void>): Promise<void> {
  const before = await qemu.readCount(RANGE);
  await act();
  await qemu.waitForMoreSerial(2);
  expect(hasCountedOn(before, await qemu.readCount(RANGE))).toBe(true);
}

for (const version of ["7.2", "11.1"] as const) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a driven QEMU ${version}: its peer hangs up, refuses, Ctrl-C: the guest counts on`, async () => {
    await using directory = new TemporaryDirectory("driven");
    const path = directory.file("qmp");
    await using qemu = await startQemu({
      ...{ program: qemuProgram(version), memoryMib: 32, bootSector: buildBootSector(RANGE) },
      extraArguments: ["-qmp", `unix:${path},server=on,wait=off`],
    });
    await qemu.waitForRounds(2);
    for (const misdeed of [hangUp, refuse]) {
      await expectGoesOn(qemu, async () => {
        const end = await send(`qemu:${path}`, PRECOPY, "precopy", misdeed);
        expect(end.exitCode).toBe(1);
        expect(end.error?.message).toStartWith("The migration failed; the guest goes on here");
      });
    }
    await expectGoesOn(qemu, async () => {
      const end = await send(`qemu:${path}`, PRECOPY, "precopy", interrupt);
      expect(end).toMatchObject({ exitCode: 130, report: { outcome: "cancelled" } });
    });
  });
}

const newTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());

newTest("a driven QEMU 11.1: the package is not taken: the guest counts on", async () => {
  await using directory = new TemporaryDirectory("driven");
  const path = directory.file("qmp");
  await using qemu = await startQemu({
    ...{ program: qemuProgram("11.1"), memoryMib: 32, bootSector: buildBootSector(RANGE) },
    extraArguments: ["-qmp", `unix:${path},server=on,wait=off`],
  });
  await qemu.setCapabilities({ events: true });
  await qemu.waitForRounds(2);
  const packageSent = (): Promise<unknown> => qemu.waitForMigration("postcopy-device");
  await expectGoesOn(qemu, async () => {
    const end = await send(`qemu:${path}`, NOW, "device", async (peer) => {
      await packageSent();
      peer.close();
    });
    expect(end.exitCode).toBe(1);
    expect(end.error?.message).toStartWith("The migration failed; the guest goes on here");
  });
});

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

oldTest("a driven QEMU 7.2: once the package is sent it never runs the guest again", async () => {
  await using directory = new TemporaryDirectory("driven");
  const path = directory.file("qmp");
  const guest = `qemu:${path}`;
  await using qemu = await startQemu({
    ...{ memoryMib: 32, bootSector: buildBootSector(RANGE) },
    extraArguments: ["-qmp", `unix:${path},server=on,wait=off`],
  });
  await qemu.waitForRounds(2);
  const end = await send(guest, NOW, "postcopy", hangUp);
  expect(end).toMatchObject({ exitCode: 1, error: { code: "PAUSED" } });
  expect(end.error?.message).toStartWith("The guest stands still here");
  const { running } = await qemu.qmp.execute<{ running: boolean }>("query-status");
  expect(running).toBe(false);
  await using again = startSource({ guest, to: "tcp:127.0.0.1:1" });
  const { error } = await again.end();
  expect(error?.code).toBe("MOVING");
  expect(error?.message).toContain("to tcp:127.0.0.1:");
});
