/**
 * What becomes of a VMM whose memory cannot be filled: it is killed, or left standing where it waits,
 * and it is said for which page and why. It never reads a byte that was not the guest's. The VMM is
 * examples/vmm.c, which checks every byte that it reads. Where somebody keeps its userfaultfd another
 * dest goes on, to the last byte, while the VMM's balloon gives pages back all the time.
 */
import { afterAll, expect } from "bun:test";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import type { DestReport } from "../../src/report/report.ts";
import { waitUntil } from "../helpers/deadline.ts";
import {
  expectFrozen,
  IMPATIENT,
  loseSource,
  expectRight,
  prepareVmm,
  READING,
  residentBytes,
  SLOW_PUSH,
  startFilling,
  startHolder,
  WAITING_PLACE,
  warningOf,
} from "../helpers/filled-vmm.ts";
import { Link } from "../helpers/link.ts";
import { Role, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, RoleEnd } from "../helpers/migration.ts";
import { needCompiler, needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { ServiceManager } from "../helpers/service-manager.ts";
import { postcopyCommand, PROJECT_ROOT, spawn, withJournal } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { keptMemory, removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";

const vmmTest = requireOrSkip(needQemu(), needUserfaultfd(), needCompiler());
afterAll(removeVmm);

async function killWhenLost(): Promise<void> {
  await using directory = new TemporaryDirectory("vmm-lost");
  const { socket, file } = await prepareVmm(directory);
  await using dest = await startDest({ guest: `uffd:${socket}`, flags: IMPATIENT });
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  const end = await loseSource(vmm, dest);
  expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
  expect(end).toMatchObject({ exitCode: 1, report: { outcome: "failed" } });
  const message = warningOf(end, "VMM_KILLED");
  expect(message).toStartWith(`The memory of the VMM (process ${vmm.pid}) is filled no more: `);
  const [, inRegion, inBlock] = WAITING_PLACE.exec(message) ?? [];
  expect(inRegion).toBe(inBlock ?? "no page is named");
}

/** Another guest, whose RAM has the same shape, as a GUEST: kept at another time. */
function copyOf(guest: string, path: string): string {
  cpSync(guest.slice("snapshot:".length), path, { recursive: true });
  const manifest = join(path, "manifest.json");
  const text = readFileSync(manifest, "utf8");
  writeFileSync(manifest, text.replace(/("createdAt": *")\d{4}/, "$11999"));
  return `snapshot:${path}`;
}

/** A source of another guest is told so by `dest`, which goes on waiting. */
async function expectStranger(dest: DestRole, guest: string): Promise<void> {
  await using source = startSource({ guest, to: dest.peer, flags: ["--resume"] });
  const { exitCode, error } = await source.end();
  expect({ exitCode, message: error?.message }).toEqual({
    exitCode: 1,
    message:
      "The rest of the guest was not sent; what the destination has stays there: " +
      "The destination waits for another guest",
  });
  const { message } = await dest.event("warning", (each) => /another/.test(each.message));
  expect(message).toBe("The recovery failed: The source has another guest than the one before");
}

/** A VMM that was left standing is gone on with, as its userfaultfd was kept. */
async function freezeWhenLost(): Promise<void> {
  await using directory = new TemporaryDirectory("vmm-frozen");
  const { socket, guest, file } = await prepareVmm(directory);
  const held = directory.file("held");
  await using _holder = await startHolder(held);
  const keeper = ["--keep-fd", `holder:${held}`];
  const flags = [...IMPATIENT, ...keeper, "--on-failure", "freeze"];
  await using dest = await startDest({ guest: `uffd:${socket}`, flags });
  await using vmm = await startVmm(socket, "--expect", file, "--wait", "--hold");
  const end = await loseSource(vmm, dest);
  await expectFrozen(vmm);
  expect(end.exitCode).toBe(1);
  const message = warningOf(end, "VMM_FROZEN");
  expect(message).toMatch(WAITING_PLACE);
  expect(message).toContain(`kill -KILL ${vmm.pid}`);
  expect(message).toContain(`dest --json --guest uffd:${socket} `);
  expect(message).toContain(`--keep-fd holder:${held} --on-failure freeze --resume`);
  const other = copyOf(guest, directory.file("other"));
  const again = { guest: `uffd:${socket}`, flags: [...keeper, "--resume"] };
  const from = ["dest", "--json", "--guest", again.guest, ...again.flags, "--from"];
  await using wrong = new Role<DestReport>(spawn(postcopyCommand(...from, other)));
  expect(await wrong.end()).toMatchObject({ exitCode: 1, error: { code: "OTHER_GUEST" } });
  await using next = await startDest({ ...again, listen: dest.peer });
  await expectStranger(next, other);
  next.program.kill();
  await next.program.finish();
  await expectFrozen(vmm);
  // That the pages came from a source before, and come from files now, makes no difference.
  await using last = new Role<DestReport>(spawn(postcopyCommand(...from, guest)));
  const { exitCode, stderr } = await last.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  vmm.writeLine("end");
  expect(await vmmReport(vmm)).toMatchObject({ exitCode: 0, wrongPages: 0 });
}

/** Where the only thread of a VMM of this memory begins: nothing of it is pushed before it waits there. */
const FIRST_TOUCHED = 5656;

async function killAtDamage(): Promise<void> {
  await using directory = new TemporaryDirectory("vmm-damage");
  const { socket, guest, file } = await prepareVmm(directory);
  const damaged = directory.file("guest");
  cpSync(guest.slice("snapshot:".length), damaged, { recursive: true });
  const ram = readFileSync(join(damaged, "ram-0.bin"));
  const at = FIRST_TOUCHED * 4096;
  ram[at] = (ram[at] ?? 0) ^ 1;
  writeFileSync(join(damaged, "ram-0.bin"), ram);
  await using dest = await startFilling(socket, `snapshot:${damaged}`);
  await using vmm = await startVmm(socket, "--expect", file);
  const got = await dest.end();
  expect(warningOf(got, "VMM_KILLED")).toContain(`the page at ${at} of ram-0.bin (pc.ram)`);
  const [, inRegion] = WAITING_PLACE.exec(warningOf(got, "VMM_KILLED")) ?? [];
  expect(Number(inRegion)).toBe(at);
  expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
}

vmmTest(
  "pages that will never come: the VMM is killed, or stands and is gone on with; the page is named",
  async () => {
    await Promise.all([killWhenLost(), freezeWhenLost(), killAtDamage()]);
  },
);

/** Most of it is asked for, and it is over soon. */
const STEADY = ["--max-postcopy-bandwidth", "8MiB/s", "--no-record"] as const;
/** Bytes of the guest's 32 MiB (of which half are zeros) after which dest is killed. */
const KILLED_AFTER = 2 ** 20;
/** Waits until a part of the memory has come over a link, then breaks it. */
async function cutInTheMiddle(link: Link): Promise<void> {
  const all = (): number => link.carried(0) + link.carried(1);
  await waitUntil(() => all() > KILLED_AFTER, "a part of the memory");
  link.cut();
}

/**
 * Killed twice: when the VMM has handed over, and in the middle of its memory; its holder once, and the next
 * one stands still at the end.
 */
async function goOnWithHolder(): Promise<void> {
  await using directory = new TemporaryDirectory("vmm-held");
  const [socket, held] = [directory.file("vmm"), directory.file("held")];
  const { guest, file, bytes } = await keptMemory();
  await using doomed = await startHolder(held);
  const start = async (...flags: string[]): Promise<DestRole> => {
    const keeper = ["--keep-fd", `holder:${held}`];
    return await startDest({ guest: `uffd:${socket}`, flags: [...keeper, ...flags] });
  };
  await using first = await start();
  await using vmm = await startVmm(socket, "--expect", file, ...READING);
  await first.event("handover");
  first.program.kill();
  await using dest = await start("--resume");
  await dest.event("handover");
  doomed.kill();
  await dest.event("warning", ({ code }) => code === "KEEPER_LOST");
  await using holder = await startHolder(held);
  await dest.program.stderr.waitForLine(/is kept by the holder at .* again/);
  await using link = await Link.start(dest.peer);
  await using source = startSource({ guest, to: link.uri, flags: STEADY });
  await dest.phase("postcopy");
  vmm.writeLine("read");
  await cutInTheMiddle(link);
  dest.program.kill();
  await dest.program.finish();
  await using next = await start("--resume");
  expect(await next.event("handover")).toMatchObject({ pid: vmm.pid, bytes });
  // One that stands still holds nothing up.
  holder.kill("SIGSTOP");
  link.mend(next.peer);
  source.program.writeLine("recover");
  await vmm.stdout.waitForLine(/wrongPages/);
  holder.kill("SIGCONT");
  const ends = [await source.end(), await next.end()];
  for (const { exitCode, stderr } of ends) {
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  }
  await expectRight(vmm, bytes);
  expect(await holder.finish()).toMatchObject({ exitCode: 0 });
}

/** Killed as a service, which its manager starts again; its pages come from files. */
async function goOnWithSystemd(): Promise<void> {
  await using directory = new TemporaryDirectory("vmm-stored");
  const socket = directory.file("vmm");
  const { guest, file, bytes } = await keptMemory();
  await using manager = await ServiceManager.start(`@${directory.path}`);
  const { stderr } = manager.program;
  const words = ["dest", "--guest", `uffd:${socket}`, "--from", guest, ...STEADY];
  const service = postcopyCommand(...words, "--keep-fd", "systemd");
  const first = await manager.startService(service);
  await stderr.waitForLine(/Waiting for a VMM/);
  await using vmm = await startVmm(socket, "--expect", file, ...READING);
  await stderr.waitForLine(/is kept by systemd's descriptor store/);
  const before = residentBytes(vmm);
  vmm.writeLine("read");
  await waitUntil(() => residentBytes(vmm) - before > KILLED_AFTER, "a part of the memory");
  process.kill(first, "SIGKILL");
  await manager.program.stdout.waitForLine(new RegExp(`"ended":${first}`));
  await manager.startService([...service, "--resume"]);
  await vmm.stdout.waitForLine(/wrongPages/);
  const texts = (): string[] => manager.messages.map(({ message }) => message);
  const removed = (): number => texts().filter((text) => text.startsWith("FDSTOREREMOVE")).length;
  await waitUntil(() => removed() === 3, "the end of what is stored");
  await expectRight(vmm, bytes);
}

vmmTest(
  "dest is killed, a holder or systemd has the userfaultfd: the next one goes on",
  async () => {
    await Promise.all([goOnWithHolder(), goOnWithSystemd()]);
  },
);

vmmTest("dest is killed and nobody keeps the userfaultfd: the VMM stands, for ever", async () => {
  await using directory = new TemporaryDirectory("vmm-kill");
  const { socket, guest, file } = await prepareVmm(directory);
  await using dest = await startFilling(socket, guest);
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await dest.phase("postcopy");
  dest.program.kill();
  await dest.program.finish();
  vmm.writeLine("read");
  await expectFrozen(vmm);
});

/** A VMM is killed once `dest` is at some moment. */
async function killVmm(
  socket: string,
  dest: DestRole,
  moment: () => Promise<unknown>,
): Promise<void> {
  const { file } = await keptMemory();
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await moment();
  vmm.kill();
  const end = await dest.end();
  expect(end).toMatchObject({
    exitCode: 4,
    error: { code: "VMM_GONE", message: "The VMM whose memory is filled has ended" },
    report: { outcome: "failed", error: { code: "VMM_GONE" } },
  });
  expect(end.stderr).not.toContain("is killed");
}

/** Its source ends as well, and does not try to come back to nobody. */
async function killWhileSent(directory: TemporaryDirectory): Promise<void> {
  const { guest, file } = await keptMemory();
  const socket = directory.file("sent");
  await using dest = await startDest({ guest: `uffd:${socket}` });
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await dest.event("handover");
  await using source = startSource({ guest, to: dest.peer, flags: SLOW_PUSH });
  await dest.phase("postcopy");
  vmm.kill();
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent.exitCode, got.exitCode]).toEqual([4, 4]);
  expect([sent.error?.code, sent.report.error?.code]).toEqual(["VMM_GONE", "VMM_GONE"]);
  expect(sent.error?.message).toBe(
    "The migration failed; what was kept is as it was: " +
      "The VMM whose memory the destination filled is no more",
  );
  const phases = sent.events.flatMap((each) => (each.event === "phase" ? [each.phase] : []));
  expect(phases).not.toContain("paused");
}

vmmTest("the VMM is killed: both ends end at once, with an exit code of its own", async () => {
  await using directory = new TemporaryDirectory("vmm-death");
  const { guest, socket } = await prepareVmm(directory);
  const other = directory.file("other");
  await using early = await startDest({ guest: `uffd:${other}` });
  await using late = await startFilling(socket, guest);
  await Promise.all([
    killWhileSent(directory),
    killVmm(socket, late, () => late.phase("postcopy")),
    // No source has come yet.
    killVmm(other, early, () => early.event("handover")),
  ]);
});

vmmTest(
  "a VMM that connects and ends before it has handed over: dest says so and ends",
  async () => {
    await using directory = new TemporaryDirectory("vmm-silent");
    const { socket } = await prepareVmm(directory);
    await using dest = await startDest({ guest: `uffd:${socket}` });
    await waitUntil(() => dest.program.stderr.text.includes("Waiting for a VMM"), "the socket");
    const connection = connect(socket);
    connection.on("error", () => undefined);
    connection.end("[");
    expect(await dest.end()).toMatchObject({ exitCode: 1, error: { code: "CUT_HANDOVER" } });
  },
);

const MORTAL = join(PROJECT_ROOT, "tests", "fixtures", "dying-thread.ts");

/** Fills a VMM by a dest whose thread dies in the middle of it. */
async function loseThread(thread: string): Promise<RoleEnd<DestReport>> {
  await using directory = new TemporaryDirectory("vmm-mortal");
  const { socket, guest, file } = await prepareVmm(directory);
  const die = directory.file("die");
  const words = ["dest", "--json", "--guest", `uffd:${socket}`, "--from", guest, ...SLOW_PUSH];
  const command = [process.execPath, MORTAL, thread, die, ...withJournal(words)];
  await using dest: DestRole = new Role<DestReport>(spawn(command));
  await dest.event("listening");
  await using vmm = await startVmm(socket, "--expect", file, "--wait");
  await dest.event("running");
  writeFileSync(die, "");
  // Its faults are what the fault thread looks at next.
  vmm.writeLine("read");
  const end = await dest.end();
  expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
  return end;
}

vmmTest(
  "Ctrl-C at dest: the first is warned about, with the second the VMM is killed",
  async () => {
    await using directory = new TemporaryDirectory("vmm-interrupt");
    const { socket, file } = await prepareVmm(directory);
    await using dest = await startDest({ guest: `uffd:${socket}` });
    await using vmm = await startVmm(socket, "--expect", file);
    await dest.event("handover");
    // What is waited for is shown twice a second, once it is at work.
    await dest.event("progress");
    dest.program.kill("SIGINT");
    await dest.program.stderr.waitForLine(/Interrupt once more/);
    expect(vmm.running).toBe(true);
    dest.program.kill("SIGINT");
    const end = await dest.end();
    expect(end.exitCode).toBe(130);
    expect(warningOf(end, "VMM_KILLED")).toContain("no source has come");
    expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
  },
);

vmmTest("a signal that nothing else answers ends dest: the VMM is killed", async () => {
  const signals = [
    ["SIGQUIT", 131],
    ["SIGABRT", 134],
  ] as const;
  const ends = signals.map(async ([signal, code]) => {
    await using directory = new TemporaryDirectory("vmm-signal");
    const { socket, guest, file } = await prepareVmm(directory);
    await using dest = await startFilling(socket, guest);
    await using vmm = await startVmm(socket, "--expect", file, "--wait");
    await dest.event("running");
    dest.program.kill(signal);
    const end = await dest.end();
    expect(end.exitCode).toBe(code);
    expect(warningOf(end, "VMM_KILLED")).toContain(
      "is filled no more: this process ends; no fault",
    );
    expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "", stderr: "" });
  });
  await Promise.all(ends);
});

vmmTest("a thread of dest ends by itself: the VMM is killed", async () => {
  const threads = ["incoming", "listen", "fault", "main"].map(async (thread) => {
    const end = await loseThread(thread);
    const error = { message: `the ${thread} thread ended by itself` };
    expect(end).toMatchObject({ exitCode: 1, error });
    expect(warningOf(end, "VMM_KILLED")).toContain("is filled no more");
  });
  await Promise.all(threads);
});
