/** `qemu:SOCKET` at either end: a running QEMU is moved, or receives, by itself and driven by us. */
import { expect } from "bun:test";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { buildBootSector, DEFAULT_RANGE } from "../helpers/boot-sector.ts";
import type { BootSectorRange } from "../helpers/boot-sector.ts";
import { HELD_PUSH_BYTES, hurryOnceAsked, startDriven } from "../helpers/driven-qemu.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { restoreIntoQemu } from "../helpers/qemu-snapshot.ts";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { destReportOf, runPostcopy, sourceReportOf } from "../helpers/postcopy-run.ts";
import {
  machineOf,
  needQemuVersion,
  qemuProgram,
  QEMU_VERSIONS,
} from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

async function expectToCountOn(
  qemu: Qemu,
  before: Count,
  range: BootSectorRange = DEFAULT_RANGE,
): Promise<void> {
  const first = await qemu.readCount(range);
  expect(hasCountedOn(before, first)).toBe(true);
  await qemu.waitForMoreSerial(3);
  expect(hasCountedOn(first, await qemu.readCount(range))).toBe(true);
}

interface Move {
  from: QemuVersion;
  to: QemuVersion;
  preempt: boolean;
  switchover: "now" | "rounds=2";
  multifd?: boolean;
}

const PAIRS = QEMU_VERSIONS.flatMap((from) => QEMU_VERSIONS.map((to) => ({ from, to })));
const MOVES: Move[] = [
  ...PAIRS.map((pair) => ({ ...pair, preempt: false, switchover: "now" as const })),
  ...PAIRS.map((pair) => ({ ...pair, preempt: true, switchover: "now" as const })),
  { from: "7.2", to: "11.1", preempt: false, switchover: "rounds=2" },
  { from: "10.0", to: "7.2", preempt: false, switchover: "rounds=2" },
  { from: "11.1", to: "10.0", preempt: true, switchover: "rounds=2" },
  { from: "11.1", to: "11.1", preempt: false, switchover: "rounds=2", multifd: true },
];

/**
 * So few pages that a QEMU would send them within the tenth of a second in which it measures its
 * rate, and so slowly that a guest on a busy machine gets round to writing them again.
 */
const FEW_PAGES: BootSectorRange = { startAddress: 0x10_0000, endAddress: 0x110_0000 };
const FEW_PAGES_RATE = ["--max-bandwidth", "200MiB/s"];
const HELD_PUSH = ["--max-postcopy-bandwidth", `${HELD_PUSH_BYTES}B/s`];

for (const { from, to, preempt, switchover, multifd = false } of MOVES) {
  const test = requireOrSkip(needQemuVersion(from), needQemuVersion(to), needUserfaultfd());
  const channels = multifd ? "with multifd" : preempt ? "with preempt" : "plain";
  const how = `${channels}, --switchover ${switchover}`;
  test(`QEMU ${from} to QEMU ${to}, driven at both ends, ${how}`, async () => {
    await using directory = new TemporaryDirectory("drive");
    // Both ends need the machine of the older one.
    const machine = machineOf(QEMU_VERSIONS.indexOf(from) < QEMU_VERSIONS.indexOf(to) ? from : to);
    const range = switchover === "now" ? DEFAULT_RANGE : FEW_PAGES;
    const [source, sourceGuest] = await startDriven(directory, "source", {
      program: qemuProgram(from),
      machine,
      bootSector: buildBootSector(range),
    });
    await using _source = source;
    const [destination, destGuest] = await startDriven(directory, "dest", {
      program: qemuProgram(to),
      machine,
      incoming: "defer",
    });
    await using _destination = destination;
    for (const qemu of multifd ? [source, destination] : []) {
      await qemu.setCapabilities({ multifd: true });
    }
    const capabilities = await destination.qmp.execute("query-migrate-capabilities");
    await source.waitForRounds(3);
    const before = await source.readCount(range);
    const flags = preempt ? ["--preempt"] : [];
    const rate = switchover === "now" ? HELD_PUSH : FEW_PAGES_RATE;
    const [{ sent, got }] = await Promise.all([
      moveDriven(
        ["--guest", sourceGuest, "--switchover", switchover, ...rate, ...flags],
        ["--guest", destGuest, ...flags],
      ),
      switchover === "now" ? hurryOnceAsked(source) : undefined,
    ]);
    expect(sent).toMatchObject({ outcome: "completed", switchover: { kind: "postcopy" } });
    if (switchover === "now") {
      expect(sent.rounds).toEqual([]);
      expect(sent.requests.received).toBeGreaterThan(0);
    } else expectRounds(sent, 2);
    expect(got.outcome).toBe("completed");
    expect(got.qemu?.blocktimeMs).toBeNumber();
    expect(got.times.toRunning).toBeNumber();
    await expectToCountOn(destination, before, range);
    expect(await destination.qmp.execute("query-migrate-capabilities")).toEqual(capabilities);
    const { running } = await source.qmp.execute<{ running: boolean }>("query-status");
    expect(running).toBe(false);
  });
}

/** Receives in one QEMU and sends from another; gives both reports. */
async function moveDriven(
  send: readonly string[],
  receive: readonly string[],
): Promise<{ sent: SourceReport; got: DestReport }> {
  let sending: ReturnType<typeof runPostcopy> | undefined;
  const words = ["dest", "--listen", "tcp:127.0.0.1:0", ...receive];
  const received = await runPostcopy(words, (event) => {
    if (event["event"] !== "listening") return;
    sending = runPostcopy(["source", ...send, "--to", String(event["peer"])]);
  });
  if (sending === undefined) throw new Error(`dest never listened:\n${received.stderr}`);
  return { sent: sourceReportOf(await sending), got: destReportOf(received) };
}

/** Postcopy began after so many rounds, of which the first sent all of the guest. */
function expectRounds({ rounds, pages, switchover }: SourceReport, count: number): void {
  // QEMU 11.1 looks for what was written every few milliseconds: just before that, nothing may be left.
  const isEarly = switchover?.reason === "nothing is dirty any more";
  const ended = isEarly ? rounds.length : count;
  expect(ended).toBeWithin(1, count + 1);
  expect(rounds.map(({ round }) => round)).toEqual(Array.from({ length: ended }, (_, n) => n + 1));
  const [first] = rounds;
  expect((first?.pagesNormal ?? 0) + (first?.pagesZero ?? 0)).toBeGreaterThan(0.95 * pages.total);
  if (!isEarly) expect(switchover?.reason).toBe(`asked to switch after ${count} rounds`);
}

/** Receives into a snapshot and gives the address where to. */
async function keepIn(
  snapshot: string,
  send: (peer: string) => ReturnType<typeof runPostcopy>,
): ReturnType<typeof runPostcopy> {
  const words = ["dest", "--guest", `snapshot:${snapshot}`, "--listen", "tcp:127.0.0.1:0"];
  let sending: ReturnType<typeof runPostcopy> | undefined;
  const kept = await runPostcopy(words, (event) => {
    if (event["event"] === "listening") sending = send(String(event["peer"]));
  });
  destReportOf(kept);
  if (sending === undefined) throw new Error("dest never listened");
  return await sending;
}

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a QEMU ${version} is kept twice and goes on both times; both snapshots run`, async () => {
    await using directory = new TemporaryDirectory("keep");
    const program = qemuProgram(version);
    const [source, guest] = await startDriven(directory, "source", { program });
    await using _source = source;
    await source.waitForRounds(3);
    const kept: { snapshot: string; before: Count }[] = [];
    for (const name of ["first", "second"]) {
      const before = await source.readCount();
      const snapshot = directory.file(name);
      kept.push({ snapshot, before });
      const words = ["source", "--guest", guest, "--keep", "--to"];
      const run = await keepIn(snapshot, (peer) => runPostcopy([...words, peer]));
      const { qemu, requests } = sourceReportOf(run);
      expect(requests.received).toBe(0);
      expect(qemu?.stoodStillMs).toBeGreaterThan(0);
      expect(run.stderr).toContain("The guest goes on here; it stood still for");
      await expectToCountOn(source, before);
    }
    // It has shown what it should, and would take a core from the others.
    await source.qmp.execute("stop");
    for (const { snapshot, before } of kept) {
      await using destination = await startQemu({ program, incoming: "defer" });
      await restoreIntoQemu(snapshot, destination);
      await expectToCountOn(destination, before);
    }
  });
}

oldTest("a QEMU that completes in precopy is kept, and both reports say so", async () => {
  await using directory = new TemporaryDirectory("precopy");
  const [source, guest] = await startDriven(directory, "source", {});
  await using _source = source;
  await source.waitForRounds(3);
  const before = await source.readCount();
  const snapshot = directory.file("kept");
  const words = ["source", "--guest", guest, "--downtime-limit", "20s", "--to"];
  const run = await keepIn(snapshot, (peer) => runPostcopy([...words, peer]));
  const { outcome, switchover } = sourceReportOf(run);
  expect({ outcome, kind: switchover?.kind }).toEqual({ outcome: "completed", kind: "precopy" });
  expect(run.events).toContainEqual(
    expect.objectContaining({ event: "switchover", kind: "precopy", dirtyPages: 0 }),
  );
  expect(run.stderr).toContain("0 B left to move while it stood");
  await using destination = await startQemu({ incoming: "defer" });
  await destination.setCapabilities({ events: true, "postcopy-ram": true });
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  sourceReportOf(await runPostcopy(["source", "--guest", `snapshot:${snapshot}`, "--to", to]));
  await expectToCountOn(destination, before);
});

/** Capabilities that would hold a driven migration up for ever, or that the peer knows nothing of. */
const COMMON_IN_THE_WAY = ["pause-before-switchover", "postcopy-ram", "postcopy-preempt"];
const IN_THE_WAY: Record<QemuVersion, readonly string[]> = {
  "7.2": COMMON_IN_THE_WAY,
  "10.0": [...COMMON_IN_THE_WAY, "return-path", "switchover-ack"],
  "11.1": [...COMMON_IN_THE_WAY, "return-path", "switchover-ack"],
};

for (const version of QEMU_VERSIONS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`what is in the way at a QEMU ${version} is off while it is driven, and on again after`, async () => {
    await using directory = new TemporaryDirectory("way");
    const [source, guest] = await startDriven(directory, "source", {
      program: qemuProgram(version),
    });
    await using _source = source;
    const on = IN_THE_WAY[version];
    for (const name of on) await source.setCapabilities({ [name]: true });
    const before = await source.qmp.execute("query-migrate-capabilities");
    const parameters = await source.qmp.execute("query-migrate-parameters");
    await source.waitForRounds(3);
    const words = ["source", "--guest", guest, "--switchover", "now", "--to"];
    const run = await keepIn(directory.file("kept"), (peer) => runPostcopy([...words, peer]));
    expect(sourceReportOf(run).switchover?.kind).toBe("postcopy");
    expect(await source.qmp.execute("query-migrate-capabilities")).toEqual(before);
    expect(await source.qmp.execute("query-migrate-parameters")).toEqual(parameters);
  });

  test(`what QEMU ${version} refuses beside postcopy is told in its words`, async () => {
    await using directory = new TemporaryDirectory("words");
    const [source, guest] = await startDriven(directory, "source", {
      program: qemuProgram(version),
    });
    await using _source = source;
    await source.setCapabilities({ "x-ignore-shared": true });
    await source.waitForRounds(1);
    const words = ["source", "--guest", guest, "--to", "tcp:127.0.0.1:1"];
    const { exitCode, stderr } = await runPostcopy(words);
    expect(exitCode).toBe(1);
    expect(stderr).toContain("Postcopy is not compatible with ignore-shared");
    await source.waitForMoreSerial(2);
  });
}

/** The first release that can do both is 10.1; 7.2 takes both, and its destination aborts. */
const MULTIFD_REFUSALS = [
  { version: "7.2", says: "loses the guest when multifd is on in postcopy" },
  { version: "10.0", says: "Postcopy is not yet compatible with multifd" },
] as const;

for (const { version, says } of MULTIFD_REFUSALS) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a QEMU ${version} with multifd on is refused by name, at either end`, async () => {
    await using directory = new TemporaryDirectory("multifd");
    const program = qemuProgram(version);
    const [source, sourceGuest] = await startDriven(directory, "source", { program });
    await using _source = source;
    const waiting = { program, incoming: "defer" };
    const [destination, destGuest] = await startDriven(directory, "dest", waiting);
    await using _destination = destination;
    const ends = [
      { qemu: source, words: ["source", "--guest", sourceGuest, "--to", "tcp:127.0.0.1:1"] },
      { qemu: destination, words: ["dest", "--guest", destGuest, "--listen", "tcp:127.0.0.1:0"] },
    ];
    for (const { qemu, words } of ends) {
      await qemu.setCapabilities({ multifd: true });
      const run = await runPostcopy(words);
      expect(run.exitCode).toBe(1);
      expect(run.stderr).toContain(says);
    }
    await source.waitForRounds(2);
  });
}

oldTest("--keep never continues a guest that the peer runs", async () => {
  await using directory = new TemporaryDirectory("split");
  const [source, guest] = await startDriven(directory, "source", {});
  await using _source = source;
  await using destination = await startQemu({ incoming: "defer" });
  await destination.setCapabilities({ events: true, "postcopy-ram": true });
  await source.waitForRounds(3);
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  const run = await runPostcopy([
    ...["source", "--guest", guest, "--keep", "--switchover", "now", "--to", to],
  ]);
  expect(run.exitCode).toBe(1);
  expect(run.events.at(-1)).toMatchObject({ event: "error", code: "SPLIT_BRAIN" });
  expect(run.stderr).toContain("so it runs the guest");
  const { running } = await source.qmp.execute<{ running: boolean }>("query-status");
  expect(running).toBe(false);
  await destination.waitForMoreSerial(3);
});

oldTest(
  "--keep never continues a guest that the peer runs, idle, without asking for a page",
  async () => {
    await using directory = new TemporaryDirectory("idle");
    // cli; hlt: nothing is touched any more, so nothing is missed.
    const bootSector = new Uint8Array(512);
    bootSector.set([0xfa, 0xf4]);
    bootSector.set([0x55, 0xaa], 510);
    const [source, guest] = await startDriven(directory, "source", { bootSector });
    await using _source = source;
    await using destination = await startQemu({ incoming: "defer" });
    await destination.setCapabilities({ events: true, "postcopy-ram": true });
    const to = `tcp:127.0.0.1:${await destination.listen()}`;
    const run = await runPostcopy(["source", "--guest", guest, "--keep", "--to", to]);
    expect(run.exitCode).toBe(1);
    expect(run.events.at(-1)).toMatchObject({ event: "error", code: "SPLIT_BRAIN" });
    const running = async (qemu: Qemu): Promise<boolean> =>
      (await qemu.qmp.execute<{ running: boolean }>("query-status")).running;
    expect(await running(source)).toBe(false);
    await waitUntil(() => running(destination), "a guest that runs at the peer");
  },
);

oldTest("a peer that is not there, and one that refuses: the guest goes on", async () => {
  await using directory = new TemporaryDirectory("fail");
  const [source, guest] = await startDriven(directory, "source", {});
  await using _source = source;
  await source.waitForRounds(3);
  const nobody = ["--to", `unix:${directory.file("nobody")}`, "--connect-timeout", "200ms"];
  const absent = await runPostcopy(["source", "--guest", guest, ...nobody]);
  expect(absent.exitCode).toBe(1);
  expect(absent.stderr).toContain("the guest goes on here");
  expect(absent.stderr).toMatch(/No such file|Failed to connect/);
  expect(absent.report).toMatchObject({ outcome: "failed" });
  await source.waitForMoreSerial(3);
  // A destination of another size refuses.
  await using other = await startQemu({ incoming: "defer", memoryMib: 32 });
  await other.setCapabilities({ events: true, "postcopy-ram": true });
  const to = `tcp:127.0.0.1:${await other.listen()}`;
  const refused = await runPostcopy(["source", "--guest", guest, "--to", to]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("the guest goes on here");
  await source.waitForMoreSerial(3);
});

oldTest("a Ctrl-C in precopy: the guest goes on, and can be moved afterwards", async () => {
  await using directory = new TemporaryDirectory("cancel");
  const [source, guest] = await startDriven(directory, "source", {});
  await using _source = source;
  await source.waitForRounds(3);
  {
    await using dest = await startDest({ guest: `snapshot:${directory.file("kept")}` });
    const flags = ["--max-bandwidth", "1MiB/s"];
    await using role = startSource({ guest, to: dest.peer, flags });
    await role.phase("precopy");
    role.program.kill("SIGINT");
    expect(await role.end()).toMatchObject({ exitCode: 130, report: { outcome: "cancelled" } });
  }
  await source.waitForMoreSerial(3);
  await using dest = await startDest({ guest: `snapshot:${directory.file("later")}` });
  const flags = ["--switchover", "now", "--max-postcopy-bandwidth", "1MiB/s"];
  await using role = startSource({ guest, to: dest.peer, flags });
  await role.phase("postcopy");
  role.program.kill("SIGINT");
  await role.program.stderr.waitForLine(/Interrupt once more to leave it to itself/);
  role.program.kill("SIGINT");
  const end = await role.end();
  expect(end).toMatchObject({ exitCode: 130, error: undefined });
  expect(end.report).toMatchObject({ outcome: "abandoned", error: { code: "STOPPED" } });
  // It goes on as it was told to, and at its monitor it can be told otherwise.
  const { "max-postcopy-bandwidth": limit } = await source.qmp.execute<Record<string, number>>(
    "query-migrate-parameters",
  );
  expect(limit).toBe(2 ** 20);
  await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
  expect(await dest.end()).toMatchObject({ exitCode: 0, report: { outcome: "completed" } });
});

oldTest("a Ctrl-C at a QEMU that waits: it goes on waiting, and that is reported", async () => {
  await using directory = new TemporaryDirectory("leave");
  const [qemu, guest] = await startDriven(directory, "waiting", { incoming: "defer" });
  await using _qemu = qemu;
  await using dest = await startDest({ guest });
  dest.program.kill("SIGTERM");
  const end = await dest.end();
  expect(end).toMatchObject({ exitCode: 143, error: undefined });
  expect(end.report).toMatchObject({ outcome: "abandoned", error: { code: "STOPPED" } });
  const { status } = await qemu.qmp.execute<{ status: string }>("query-status");
  expect(status).toBe("inmigrate");
});

oldTest("sockets that are no monitor of a QEMU that could do it are refused by name", async () => {
  await using directory = new TemporaryDirectory("refuse");
  const to = ["--to", "tcp:127.0.0.1:1"];
  const absent = await runPostcopy(["source", "--guest", `qemu:${directory.file("no")}`, ...to]);
  expect(absent).toMatchObject({ exitCode: 1 });
  expect(absent.stderr).toContain("There is no QEMU monitor at");
  const [qemu, guest] = await startDriven(directory, "qemu", {});
  await using _qemu = qemu;
  const listen = ["--listen", "tcp:127.0.0.1:0"];
  const running = await runPostcopy(["dest", "--guest", guest, ...listen]);
  expect(running).toMatchObject({ exitCode: 1 });
  expect(running.stderr).toContain("This QEMU awaits no guest");
  const exec = await runPostcopy(["source", "--guest", guest, "--to", "exec:cat"]);
  expect(exec).toMatchObject({ exitCode: 2 });
  await qemu.qmp.execute("stop");
  const stopped = await runPostcopy(["source", "--guest", guest, ...to]);
  expect(stopped.stderr).toContain("The guest does not run: QEMU is in state paused");
});
