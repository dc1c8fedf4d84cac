/**
 * A real Linux: kept and brought back, and moved from QEMU to QEMU. It must not be able to tell:
 * its numbers go on without a gap or a repeat, its files are what they were, its clocks have gone
 * on where they were, and its kernel complains about nothing.
 */
import { afterAll, expect } from "bun:test";
import { bootLinux, LinuxPlace, needLinuxGuest } from "../helpers/linux-guest.ts";
import type { LinuxGuest } from "../helpers/linux-guest.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { TestFunction } from "../helpers/need.ts";
import { destReportOf, runPostcopy, sourceReportOf } from "../helpers/postcopy-run.ts";
import type { PostcopyRun } from "../helpers/postcopy-run.ts";
import { machineOf, needQemuVersion, qemuPath } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";

/** Two starts of Linux with much else on the machine, and 16 MiB hashed three times. */
const LIMIT_MS = 240_000;
/** Older than all three QEMUs, or as old as the oldest. */
const MACHINE = machineOf("7.2");
const FILE_MIB = 16;
/** Numbers after which the guest has surely gone on for some time. */
const NUMBERS = 500;
/** How wrong Linux may have measured the frequency of its clock, on a machine that is busy. */
const DRIFT = 0.05;
/** The resolution of what it says of its clocks, and what a command takes to say it. */
const CLOCK_SECONDS = 2;

/** So slowly that it asks for some pages, however late QEMU gets it going. */
const PUSH_RATE = ["--max-postcopy-bandwidth", "64MiB/s"];

/** What a kernel prints of a guest that was disturbed. */
const COMPLAINT = /unstable|skew|stall|lockup|blocked for|BUG|Oops|WARNING|Call Trace|error|fail/i;
/** What it prints where its clock could not be looked at in time: no fault of the guest's. */
const BUSY_HOST = /read-back delay of \d+ns, clock-skew test skipped/;

const place = new LinuxPlace();
afterAll(() => place[Symbol.asyncDispose]());

/** What Linux says of itself. */
interface Account {
  /** Seconds since it booted, those since 1970 by its own clock, and by the one of the hardware. */
  uptime: number;
  clock: number;
  hardwareClock: number;
  digest: string;
  kernelLog: string[];
}

async function accountOf(guest: LinuxGuest): Promise<Account> {
  const clocks = await guest.ask("cat /proc/uptime; date +%s; cat /sys/class/rtc/rtc0/since_epoch");
  const [uptime = NaN, , clock = NaN, hardwareClock = NaN] = clocks.split(/\s/).map(Number);
  const digest = await guest.ask("sha256sum /data/file");
  const kernelLog = (await guest.ask("dmesg")).trim().split("\n");
  return { uptime, clock, hardwareClock, digest, kernelLog };
}

/** A guest that has been somewhere, as it was when it was last seen there. */
interface Past {
  account: Account;
  /** All it had printed, in all its QEMUs. */
  printed: string;
  /** When its time there was over: until it runs again, its clocks stand still. */
  endedMs: number;
  /** When the account was taken, or a bit before. Both are times of `performance.now`. */
  accountAtMs: number;
}

function startGuest(version: QemuVersion, name: string): Promise<LinuxGuest> {
  return bootLinux(place, { name, program: [qemuPath(version)], machine: MACHINE });
}

/** Sends what `words` name to what `receive` names; each is a run of postcopy. */
async function move(
  receive: readonly string[],
  send: (peer: string) => string[],
  running?: () => void,
): Promise<[received: PostcopyRun, sent: PostcopyRun]> {
  let sending: Promise<PostcopyRun> | undefined;
  const listen = ["dest", ...receive, "--listen", "tcp:127.0.0.1:0"];
  const received = await runPostcopy(listen, ({ event, peer }) => {
    if (event === "listening") sending = runPostcopy(send(String(peer)));
    if (event === "running") running?.();
  });
  if (sending === undefined) throw new Error(`dest never listened:\n${received.stderr}`);
  return [received, await sending];
}

interface Kept extends Past {
  snapshot: string;
}

/** Linux, booted in that QEMU and kept of it; made once. */
const kept = new Map<QemuVersion, Promise<Kept>>();

function keptLinux(version: QemuVersion): Promise<Kept> {
  const made = kept.get(version) ?? keepLinux(version);
  kept.set(version, made);
  return made;
}

async function keepLinux(version: QemuVersion): Promise<Kept> {
  await using guest = await startGuest(version, `booted-${version}`);
  await guest.ask(`dd if=/dev/urandom of=/data/file bs=1M count=${FILE_MIB}`);
  const accountAtMs = performance.now();
  const account = await accountOf(guest);
  const snapshot = place.file(`kept-${version}`);
  const send = ["source", "--guest", `qemu:${guest.monitor}`, "--switchover", "now", "--to"];
  const receive = ["--guest", `snapshot:${snapshot}`];
  const [received, sent] = await move(receive, (peer) => [...send, peer]);
  destReportOf(received);
  sourceReportOf(sent);
  return { account, printed: guest.printed(), endedMs: performance.now(), accountAtMs, snapshot };
}

/** Where a kept guest is to come back: the words for it, and the guest once it runs. */
function comeBack(to: QemuVersion, name: string): [line: string, guest: LinuxGuest] {
  const line = place.commandLine({ name, program: [qemuPath(to)], machine: MACHINE });
  return [line, place.guest(name)];
}

/** Brings a kept guest back; asks it for its account as soon as it runs. */
async function bringBack(past: Kept, line: string, guest: LinuxGuest): Promise<Account> {
  let account: Promise<Account> | undefined;
  const words = ["source", "--guest", `snapshot:${past.snapshot}`, "--no-record", "--run", line];
  const run = await runPostcopy([...words, ...PUSH_RATE], ({ event }) => {
    if (event === "running") account = accountOf(guest);
  });
  expect(sourceReportOf(run).requests.received).toBeGreaterThan(0);
  if (account === undefined) throw new Error("the guest never ran");
  return await account;
}

/** The numbers, from 0 on, without a gap or a repeat, and nothing else among them. */
function expectNumbers(printed: string): void {
  const all = printed.split("\n").slice(0, -1);
  // Ahead of the first one stands what the kernel had to say while it started.
  const lines = all.slice(all.indexOf("0"));
  const wrong = lines.findIndex((line, index) => line !== String(index));
  const around = wrong < 0 ? [] : lines.slice(Math.max(0, wrong - 3), wrong + 3);
  expect(around).toEqual([]);
}

/** The guest, whose account was begun and ended here, is the one of the past, undisturbed. */
async function expectUndisturbed(
  guest: LinuxGuest,
  past: Past,
  account: Account,
  startedMs: number,
): Promise<void> {
  const endMs = performance.now();
  await guest.waitForNumbers(NUMBERS);
  expectNumbers(past.printed + guest.printed());
  const { uptime, clock, hardwareClock, digest, kernelLog } = account;
  expect(digest).toBe(past.account.digest);
  const known = past.account.kernelLog.length;
  expect(kernelLog.slice(0, known)).toEqual(past.account.kernelLog);
  const complaints = kernelLog.slice(known).filter((line) => COMPLAINT.test(line));
  expect(complaints.filter((line) => !BUSY_HOST.test(line))).toEqual([]);
  // It went on where it was, and for no longer than it can have run.
  const went = uptime - past.account.uptime;
  const pausedMs = startedMs - past.endedMs;
  const couldMs = endMs - past.accountAtMs - Math.max(0, pausedMs);
  expect(went).toBeGreaterThan(0);
  expect(went).toBeLessThan((couldMs / 1000) * (1 + DRIFT) + CLOCK_SECONDS);
  // Its own clock went with it; the one of the hardware is the host's, and knows of the pause.
  expect(Math.abs(clock - past.account.clock - went)).toBeLessThan(CLOCK_SECONDS);
  const wall = (Date.now() - (performance.now() - startedMs)) / 1000;
  expect(hardwareClock).toBeGreaterThan(wall - CLOCK_SECONDS);
  expect(hardwareClock).toBeLessThan(Date.now() / 1000 + CLOCK_SECONDS);
}

/** A test of Linux in these QEMUs. */
function linuxTest(...versions: QemuVersion[]): TestFunction {
  const needs = versions.map((version) => needQemuVersion(version));
  return requireOrSkip(needLinuxGuest(), needUserfaultfd(), ...needs);
}

const PAIRS: [from: QemuVersion, to: QemuVersion][] = [
  ["7.2", "7.2"],
  ["7.2", "10.0"],
  ["7.2", "11.1"],
  ["11.1", "11.1"],
];

for (const [from, to] of PAIRS) {
  const title = `Linux kept of QEMU ${from} goes on in QEMU ${to} as if nothing had been`;
  const body = async (): Promise<void> => {
    const past = await keptLinux(from);
    const startedMs = performance.now();
    const [line, guest] = comeBack(to, `back-${from}-${to}`);
    await using _guest = guest;
    const account = await bringBack(past, line, guest);
    await expectUndisturbed(guest, past, account, startedMs);
  };
  linuxTest(from, to)(title, body, LIMIT_MS);
}

interface Move {
  from: QemuVersion;
  to: QemuVersion;
  preempt?: boolean;
}

const MOVES: readonly Move[] = [
  { from: "7.2", to: "7.2" },
  { from: "7.2", to: "10.0" },
  { from: "7.2", to: "11.1", preempt: true },
  { from: "11.1", to: "11.1", preempt: true },
];

for (const { from, to, preempt = false } of MOVES) {
  const how = preempt ? "with preempt" : "plain";
  const title = `Linux moves from QEMU ${from} to QEMU ${to}, driven at both ends, ${how}`;
  const body = async (): Promise<void> => {
    const before = await keptLinux(from);
    const accountAtMs = performance.now();
    const [line, source] = comeBack(from, `from-${from}-${to}`);
    await using _source = source;
    const past = await bringBack(before, line, source);
    const machine = { name: `to-${from}-${to}`, program: [qemuPath(to)], machine: MACHINE };
    await using guest = await place.startIncoming(machine);
    const flags = preempt ? ["--preempt"] : [];
    const send = ["source", "--guest", `qemu:${source.monitor}`, ...flags];
    // Else QEMU may complete in precopy, whatever it was told.
    send.push("--switchover", "now", "--downtime-limit", "1ms");
    let arrived: Promise<Account> | undefined;
    const startedMs = performance.now();
    const [received, sent] = await move(
      ["--guest", `qemu:${guest.monitor}`, ...flags],
      (peer) => [...send, "--to", peer],
      () => {
        arrived = accountOf(guest);
      },
    );
    destReportOf(received);
    expect(sourceReportOf(sent).switchover?.kind).toBe("postcopy");
    if (arrived === undefined) throw new Error("the guest never ran at the destination");
    const printed = before.printed + source.printed();
    const went = { account: past, printed, endedMs: startedMs, accountAtMs };
    await expectUndisturbed(guest, went, await arrived, startedMs);
  };
  linuxTest(from, to)(title, body, LIMIT_MS);
}
