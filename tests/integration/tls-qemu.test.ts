/**
 * Migrations over TLS between QEMU, which has GnuTLS, and this program: QEMU's own list of postcopy
 * tests over TLS (plain, recovery, preempt, preempt recovery), in both directions.
 */
import { afterAll, expect } from "bun:test";

import { buildBootSector } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";
import { makeCertificates } from "../helpers/certificates.ts";
import { breakAndMend, startDriven } from "../helpers/driven-qemu.ts";
import { Link } from "../helpers/link.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { enablePostcopy, expectCountsOn } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu, QemuOptions } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const certificates = makeCertificates();
const place = new TemporaryDirectory("tls");
afterAll(async () => {
  await certificates[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

const TLS = ["--tls", certificates.path];
/** A guest that is quickly moved: it counts in 16 MiB. */
const RANGE: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x110_0000 };
const SMALL: QemuOptions = { memoryMib: 32, bootSector: buildBootSector(RANGE) };
/** Slow enough that most of the guest is still missing when the link is cut. */
const SLOW = ["--max-postcopy-bandwidth", "8MiB/s"];
const QEMU_SLOW = { "max-postcopy-bandwidth": 2 * 1024 * 1024 };

/** Has QEMU listen again; where. */
async function recover(qemu: Qemu): Promise<string> {
  await qemu.waitForMigration("postcopy-paused");
  await qemu.qmp.execute("migrate-recover", { uri: "tcp:127.0.0.1:0" });
  const reply = await qemu.qmp.execute<{ "socket-address"?: { port: string }[] }>("query-migrate");
  return `tcp:127.0.0.1:${reply["socket-address"]?.[0]?.port}`;
}

/** Sends the guest of a QEMU to a destination of ours, over a link that breaks in the middle. */
async function keepOverBrokenLink(source: Qemu, dest: DestRole): Promise<void> {
  await source.qmp.execute("migrate-set-parameters", QEMU_SLOW);
  await using link = await Link.start(dest.peer);
  await source.qmp.execute("migrate", { uri: link.uri });
  await source.qmp.execute("migrate-start-postcopy");
  // From 10.2 on a source takes its guest back when the link breaks before it has heard this.
  await Promise.all([dest.phase("postcopy"), source.waitForMigration("postcopy-active")]);
  link.cut();
  await dest.phase("paused");
  await source.waitForMigration("postcopy-paused");
  link.mend(dest.peer);
  await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
  await source.qmp.execute("migrate", { uri: link.uri, resume: true });
  await source.waitForMigration("completed");
}

/** Sends a kept guest to a QEMU, over a link that breaks in the middle. */
async function restoreOverBrokenLink(
  snapshot: string,
  destination: Qemu,
  flags: readonly string[],
): Promise<void> {
  await using link = await Link.start(`tcp:127.0.0.1:${await destination.listen()}`);
  const guest = `snapshot:${snapshot}`;
  await using source = startSource({ to: link.uri, guest, flags: [...TLS, ...SLOW, ...flags] });
  await destination.qmp.waitForEvent("RESUME");
  link.cut();
  await source.phase("paused");
  link.mend(await recover(destination));
  const { exitCode, stderr, report } = await source.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(report).toMatchObject({ outcome: "completed", recoveries: 1 });
  expect(report.urgentChannel).toBe(flags.includes("--preempt"));
  await destination.waitForMigration("completed");
}

/** The way there; on the way back multifd is not ours to send. */
const WAYS: readonly { version: QemuVersion; preempt: boolean; multifd?: boolean }[] = [
  { version: "7.2", preempt: false },
  { version: "7.2", preempt: true },
  { version: "10.0", preempt: false },
  { version: "11.1", preempt: false },
  { version: "11.1", preempt: true, multifd: true },
];

for (const { version, preempt, multifd = false } of WAYS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  const how = multifd ? ", with preempt and multifd" : preempt ? ", with preempt" : "";
  test(`QEMU ${version} over TLS to snapshot, and back${how}, over links that break`, async () => {
    const program = qemuProgram(version);
    const snapshot = place.file(`kept-${version}-${preempt}`);
    const capabilities = { "postcopy-preempt": preempt };
    await using source = await startQemu({ ...SMALL, program, outOfBand: true });
    await enablePostcopy(source, { ...capabilities, ...(multifd ? { multifd } : {}) });
    await source.useTls(certificates.path, "client");
    await source.waitForRounds(3);
    const before = await source.readCount(RANGE);
    await using dest = await startDest({ guest: `snapshot:${snapshot}`, flags: TLS });
    await keepOverBrokenLink(source, dest);
    const { exitCode, stderr, report } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report).toMatchObject({ outcome: "completed", completedIn: "postcopy" });
    // The threads see only the bridge; who is told of is whoever is behind it.
    expect(report.peer).toStartWith("tcp:127.0.0.1:");
    expect(report.multifd === null).toBe(!multifd);

    const incoming = { ...SMALL, program, incoming: "defer", outOfBand: true };
    await using destination = await startQemu(incoming);
    await enablePostcopy(destination, capabilities);
    await destination.useTls(certificates.path, "server");
    await restoreOverBrokenLink(snapshot, destination, preempt ? ["--preempt"] : []);
    await expectCountsOn(destination, before, RANGE);
  });
}

/** What a QEMU has left of TLS when it is given back. */
async function leftOfTls(qemu: Qemu): Promise<unknown> {
  const parameters = await qemu.qmp.execute<Record<string, unknown>>("query-migrate-parameters");
  const objects = await qemu.qmp.execute<{ name: string }[]>("qom-list", { path: "/objects" });
  const names = objects.map(({ name }) => name).filter((name) => name.includes("tls"));
  return { creds: parameters["tls-creds"], hostname: parameters["tls-hostname"], names };
}

const NOTHING_LEFT = { creds: "", hostname: "", names: [] };

for (const version of ["7.2", "11.1"] as const) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`between QEMUs ${version} that are driven, with preempt, over TLS, over a link that breaks`, async () => {
    const program = qemuProgram(version);
    const name = `driven-${version}`;
    const [from, sourceGuest] = await startDriven(place, `${name}-source`, { ...SMALL, program });
    await using source = from;
    const [to, destGuest] = await startDriven(place, `${name}-dest`, {
      ...SMALL,
      program,
      incoming: "defer",
    });
    await using destination = to;
    await source.waitForRounds(3);
    const before = await source.readCount(RANGE);
    const flags = [...TLS, "--preempt"];
    await using receiving = await startDest({ guest: destGuest, flags });
    await using link = await Link.start(receiving.peer);
    await using sending: SourceRole = startSource({
      to: link.uri,
      guest: sourceGuest,
      flags: [...flags, ...SLOW, "--switchover", "now", "--tls-hostname", "host2.example"],
    });
    await breakAndMend(
      link,
      { qemu: source, role: sending },
      { qemu: destination, role: receiving },
    );
    await expectCountsOn(destination, before, RANGE);
    expect(await leftOfTls(source)).toEqual(NOTHING_LEFT);
    expect(await leftOfTls(destination)).toEqual(NOTHING_LEFT);
  });
}

const test = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());

test("a driven QEMU whose destination has another authority keeps its guest, and nothing of TLS", async () => {
  await using others = makeCertificates();
  const [from, guest] = await startDriven(place, "refused-source", {
    ...SMALL,
    program: qemuProgram("11.1"),
  });
  await using source = from;
  await using dest = await startDest({
    guest: `snapshot:${place.file("refused")}`,
    flags: ["--tls", others.path],
  });
  await using sending = startSource({ to: dest.peer, guest, flags: TLS });
  const { exitCode, error } = await sending.end();
  expect(exitCode).toBe(1);
  expect(error?.message).toContain("The migration failed; the guest goes on here");
  expect(error?.message).toMatch(/certificate/i);
  expect(await leftOfTls(source)).toEqual(NOTHING_LEFT);
  const { message } = await dest.event("warning");
  expect(message).toContain("A connection was turned away");
  dest.program.kill("SIGTERM");
  expect(await dest.end()).toMatchObject({ exitCode: 143 });
});
