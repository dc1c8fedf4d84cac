/** `qemu:SOCKET` at either end: a running QEMU is moved, or receives, by itself and driven by us. */
import { expect } from "bun:test";
import { captureQemu } from "../helpers/qemu-snapshot.ts";
import { hasCountedOn } from "../helpers/memory-pattern.ts";
import type { Count } from "../helpers/memory-pattern.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { collectRun, destReportOf, runPostcopy, sourceReportOf } from "../helpers/postcopy-run.ts";
import { machineOf, needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu, QemuOptions } from "../helpers/qemu.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const oldTest = requireOrSkip(needQemuVersion("7.2"), needUserfaultfd());

/** A QEMU with a second monitor, as each monitor serves one client at a time: ours is the test's. */
async function startDriven(
  directory: TemporaryDirectory,
  name: string,
  options: QemuOptions,
): Promise<[qemu: Qemu, guest: string]> {
  const path = directory.file(name);
  const extraArguments = ["-qmp", `unix:${path},server=on,wait=off`];
  const qemu = await startQemu({ ...options, extraArguments });
  return [qemu, `qemu:${path}`];
}

async function expectToCountOn(qemu: Qemu, before: Count): Promise<void> {
  const first = await qemu.readCount();
  expect(hasCountedOn(before, first)).toBe(true);
  await qemu.waitForMoreSerial(3);
  expect(hasCountedOn(first, await qemu.readCount())).toBe(true);
}

interface Move {
  from: QemuVersion;
  to: QemuVersion;
  preempt?: boolean;
  /** The source has postcopy-preempt on from before, whatever is asked now. */
  preemptBefore?: boolean;
  switchover?: string;
}

const MOVES: Move[] = [
  { from: "7.2", to: "7.2" },
  { from: "7.2", to: "7.2", preempt: true },
  { from: "7.2", to: "7.2", preemptBefore: true },
  { from: "7.2", to: "11.1", switchover: "rounds=2" },
  { from: "7.2", to: "11.1", preempt: true },
  { from: "10.0", to: "11.1", preempt: true },
  { from: "11.1", to: "11.1" },
  { from: "11.1", to: "11.1", preempt: true },
  { from: "11.1", to: "7.2" },
];

for (const { from, to, preempt = false, preemptBefore = false, switchover = "now" } of MOVES) {
  const test = requireOrSkip(needQemuVersion(from), needQemuVersion(to), needUserfaultfd());
  const channels = preempt ? "with preempt" : preemptBefore ? "plain again" : "plain";
  const how = `${channels}, --switchover ${switchover}`;
  test(`QEMU ${from} to QEMU ${to}, driven at both ends, ${how}`, async () => {
    await using directory = new TemporaryDirectory("drive");
    // Both ends need the machine of the older one.
    const machine = machineOf(Number(from) < Number(to) ? from : to);
    const [source, sourceGuest] = await startDriven(directory, "source", {
      program: qemuProgram(from),
      machine,
    });
    await using _source = source;
    const [destination, destGuest] = await startDriven(directory, "dest", {
      program: qemuProgram(to),
      machine,
      incoming: "defer",
    });
    await using _destination = destination;
    if (preemptBefore) {
      await source.setCapabilities({ "postcopy-ram": true, "postcopy-preempt": true });
    }
    await source.waitForRounds(3);
    const before = await source.readCount();
    const flags = preempt ? ["--preempt"] : [];
    const receive = ["dest", "--guest", destGuest, "--listen", "tcp:127.0.0.1:0", ...flags];
    const send = ["source", "--guest", sourceGuest, "--switchover", switchover, ...flags];
    // Else QEMU may complete in precopy, whatever it was told.
    send.push("--downtime-limit", "1ms");
    let sending: ReturnType<typeof runPostcopy> | undefined;
    const received = await runPostcopy(receive, (event) => {
      if (event["event"] === "listening")
        sending = runPostcopy([...send, "--to", String(event["peer"])]);
    });
    if (sending === undefined) throw new Error(`dest never listened:\n${received.stderr}`);
    const sent = sourceReportOf(await sending);
    const got = destReportOf(received);
    expect(sent).toMatchObject({ outcome: "completed", switchover: { kind: "postcopy" } });
    // After rounds of precopy the guest may need nothing that is not there.
    if (switchover === "now") expect(sent.requests.received).toBeGreaterThan(0);
    else expect(sent.rounds.length).toBeGreaterThan(0);
    expect(got.outcome).toBe("completed");
    expect(got.qemu?.blocktimeMs).toBeNumber();
    expect(got.times.toRunning).toBeNumber();
    await expectToCountOn(destination, before);
    const { running } = await source.qmp.execute<{ running: boolean }>("query-status");
    expect(running).toBe(false);
  });
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

for (const version of ["7.2", "11.1"] as const) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`a QEMU ${version} is kept twice and goes on both times; both snapshots run`, async () => {
    await using directory = new TemporaryDirectory("keep");
    const program = qemuProgram(version);
    const [source, guest] = await startDriven(directory, "source", { program });
    await using _source = source;
    await source.waitForRounds(3);
    for (const name of ["first", "second"]) {
      const before = await source.readCount();
      const words = ["source", "--guest", guest, "--keep", "--to"];
      const run = await keepIn(directory.file(name), (peer) => runPostcopy([...words, peer]));
      const { qemu, requests } = sourceReportOf(run);
      expect(requests.received).toBe(0);
      expect(qemu?.stoodStillMs).toBeGreaterThan(0);
      expect(run.stderr).toContain("The guest goes on here; it stood still for");
      await expectToCountOn(source, before);
      await using destination = await startQemu({ program, incoming: "defer" });
      await destination.setCapabilities({ events: true, "postcopy-ram": true });
      const to = `tcp:127.0.0.1:${await destination.listen()}`;
      sourceReportOf(
        await runPostcopy(["source", "--guest", `snapshot:${directory.file(name)}`, "--to", to]),
      );
      await expectToCountOn(destination, before);
    }
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
  await using other = await startQemu({ incoming: "defer", memoryMib: 64 });
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
  const words = ["source", "--guest", guest, "--json", "--max-bandwidth", "1MiB/s"];
  await using dest = spawn(
    postcopyCommand(
      "dest",
      "--json",
      "--guest",
      `snapshot:${directory.file("kept")}`,
      "--listen",
      "tcp:127.0.0.1:0",
    ),
  );
  let to = "";
  for await (const event of dest.events()) {
    if (event["event"] !== "listening") continue;
    to = String(event["peer"]);
    break;
  }
  await using program = spawn(postcopyCommand(...words, "--to", to));
  const run = await collectRun(program, (event) => {
    if (event["event"] === "phase" && event["phase"] === "precopy") program.kill("SIGINT");
  });
  expect(run).toMatchObject({ exitCode: 130, report: { outcome: "cancelled" } });
  await source.waitForMoreSerial(3);
  const snapshot = directory.file("later");
  await source.setCapabilities({ events: true, "postcopy-ram": true });
  await captureQemu(source, snapshot);
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
