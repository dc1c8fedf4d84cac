/**
 * A driven QEMU whose peer fails, at every point before the guest may run there: the guest goes on
 * where it was, and its count shows it.
 */
import { expect } from "bun:test";

import { buildBootSector } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { startDriven } from "../helpers/driven-qemu.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import type { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import { NO_RECOVERY, startSource } from "../helpers/migration.ts";
import type { RoleEnd, SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import type { SourceReport } from "../../src/report/report.ts";

const RANGE: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x110_0000 };
const PRECOPY = ["--max-bandwidth", "1MiB/s"];
/** Held back: a QEMU 7.2 that has sent everything waits for ever for a peer that is gone. */
const NOW = ["--switchover", "now", "--max-postcopy-bandwidth", "256KiB/s", ...NO_RECOVERY];

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

/** The head of the command PACKAGED; the size of the package follows, and then the package. */
const PACKAGED_HEAD = Uint8Array.of(0x08, 0, 7, 0, 4);

function hasPackage(received: Uint8Array): boolean {
  const bytes = Buffer.from(received.buffer, received.byteOffset, received.length);
  const end = bytes.indexOf(PACKAGED_HEAD) + PACKAGED_HEAD.length;
  if (end < PACKAGED_HEAD.length || bytes.length < end + 4) return false;
  return bytes.length >= end + 4 + bytes.readUInt32BE(end);
}

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

/** A QEMU with a small guest that counts, and the GUEST word of a second monitor. */
async function startCounting(
  version: QemuVersion,
  directory: TemporaryDirectory,
): Promise<[qemu: Qemu, guest: string]> {
  const [qemu, guest] = await startDriven(directory, "qmp", {
    ...{ program: qemuProgram(version), memoryMib: 32, bootSector: buildBootSector(RANGE) },
  });
  await qemu.setCapabilities({ events: true });
  await qemu.waitForRounds(2);
  return [qemu, guest];
}

async function expectStays(
  qemu: Qemu,
  ...[guest, flags, phase, misdeed]: Parameters<typeof send>
): Promise<void> {
  await expectGoesOn(qemu, async () => {
    const { exitCode, error } = await send(guest, flags, phase, misdeed);
    expect(exitCode).toBe(1);
    expect(error?.message).toStartWith("The migration failed; the guest goes on here");
  });
}

const newTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());

newTest(
  "a driven QEMU 11.1: its peer hangs up, also after the package, or refuses; Ctrl-C: the guest counts on",
  async () => {
    await using directory = new TemporaryDirectory("driven");
    const [started, guest] = await startCounting("11.1", directory);
    await using qemu = started;
    for (const misdeed of [hangUp, refuse]) {
      await expectStays(qemu, guest, PRECOPY, "precopy", misdeed);
    }
    await expectGoesOn(qemu, async () => {
      const end = await send(guest, PRECOPY, "precopy", interrupt);
      expect(end).toMatchObject({ exitCode: 130, report: { outcome: "cancelled" } });
    });
    // Its earlier failures are told of as well.
    const from = qemu.qmp.events.length;
    await expectStays(qemu, guest, NOW, "device", async (peer) => {
      await qemu.waitForMigration("postcopy-device", { from });
      peer.close();
    });
  },
);

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

oldTest(
  "a driven QEMU 7.2: its peer hangs up or refuses: the guest counts on, but not after the package",
  async () => {
    await using directory = new TemporaryDirectory("driven");
    const [started, guest] = await startCounting("7.2", directory);
    await using qemu = started;
    for (const misdeed of [hangUp, refuse]) {
      await expectStays(qemu, guest, PRECOPY, "precopy", misdeed);
    }
    const end = await send(guest, NOW, "postcopy", async (peer) => {
      // QEMU 7.2 says so a moment before it sends the package.
      await waitUntil(() => hasPackage(peer.received), "the whole package");
      peer.close();
    });
    expect(end).toMatchObject({ exitCode: 1, error: { code: "PAUSED" } });
    expect(end.error?.message).toStartWith("The guest stands still here");
    const { running } = await qemu.qmp.execute<{ running: boolean }>("query-status");
    expect(running).toBe(false);
    await using again = startSource({ guest, to: "tcp:127.0.0.1:1" });
    const { error } = await again.end();
    expect(error?.code).toBe("MOVING");
    expect(error?.message).toContain("to tcp:127.0.0.1:");
  },
);
