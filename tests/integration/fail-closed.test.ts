/**
 * Threads that end by themselves while pages of the guest are still on their way: the guest is frozen
 * or dead, and that is said; it never reads what was not sent, and nobody waits for ever. What the
 * kernel was told is looked at: without its userfaultfd the guest would read zeros.
 */
import { expect } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { NO_RECOVERY, pages, Role, startDest, startSource } from "../helpers/migration.ts";
import { makeCertificates } from "../helpers/certificates.ts";
import { needStrace, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import { postcopyCommand, PROJECT_ROOT, spawn, withJournal } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const destTest = requireOrSkip(needUserfaultfd(), needStrace());
const sourceTest = requireOrSkip(needUserfaultfd());

const GUEST = "stress:size=32MiB,rate=2MiB/s,duration=100ms";
const COUNT = pages("32MiB");
/** It asks for a page now and then, and the rest is held back. */
const SLOW = ["--switchover", "now", "--max-postcopy-bandwidth", "256KiB/s", ...NO_RECOVERY];
const MORTAL = join(PROJECT_ROOT, "tests", "fixtures", "dying-thread.ts");

/** A command of postcopy whose thread `thread` dies when `file` appears. */
function mortal(thread: string, file: string, ...words: string[]): string[] {
  return [process.execPath, MORTAL, thread, file, ...withJournal(words)];
}

/**
 * What is done with the userfaultfd of the guest's memory, from a trace: the last one opened. A call
 * that another thread's interrupts is on two lines, and only the second one has its result.
 */
function ends(trace: string): string[] {
  const opened = [...trace.matchAll(/userfaultfd(?:\(| resumed>).*= (\d+)$/gm)].at(-1);
  if (opened === undefined) throw new Error(`no userfaultfd was opened:\n${trace}`);
  const fd = opened[1];
  const until = trace.indexOf("exit_group(", opened.index);
  const life = trace.slice(opened.index, until);
  const calls = new RegExp(`(close\\(${fd}\\b|ioctl\\(${fd}, UFFDIO_UNREGISTER)`, "g");
  return [...life.matchAll(calls)].map(([call]) => call);
}

/** Starts a destination under strace, one thread of which dies once the guest runs there. */
async function loseThread(thread: string, flags: readonly string[]) {
  await using directory = new TemporaryDirectory("mortal");
  const [file, trace] = [directory.file("die"), directory.file("trace")];
  const words = ["dest", "--json", "--guest", "stress", "--listen", "tcp:127.0.0.1:0"];
  const calls = ["-e", "trace=userfaultfd,close,exit_group,ioctl", "-o", trace];
  const command = mortal(thread, file, ...words, ...NO_RECOVERY);
  await using dest = new Role<DestReport>(
    spawn(["strace", "-f", "--seccomp-bpf", ...calls, ...command]),
  );
  const { peer } = await dest.event("listening");
  await using source = startSource({ to: peer, guest: GUEST, flags });
  await dest.event("running");
  writeFileSync(file, "");
  const [got, sent] = await Promise.all([dest.end(), source.end()]);
  return { got, sent, ends: ends(readFileSync(trace, "latin1")) };
}

const LOST = /The guest ran here and ends with this process: [\d,]+ of its pages never came/;
const SAYS = { incoming: LOST, listen: LOST, fault: LOST, main: /^postcopy: internal error: /m };

destTest(
  "dest: a thread of its own ends in postcopy: the guest ends, and reads no zeros",
  async () => {
    const threads = Object.entries(SAYS).map(async ([thread, says]) => {
      const { got, sent, ends: calls } = await loseThread(thread, SLOW);
      const error = { message: `the ${thread} thread ended by itself` };
      expect(got).toMatchObject({ exitCode: 1, error });
      expect(got.stderr).toMatch(says);
      // A thread that ended with the return path locked leaves nobody who could tell the source.
      expect(sent.error?.message).toMatch(/the guest is (at the destination|lost)/);
      expect(calls).toEqual([]);
    });
    await Promise.all(threads);
  },
);

destTest(
  "dest: a thread of the guest ends in postcopy: it is told of when all is there",
  async () => {
    const { got, sent, ends: calls } = await loseThread("stress", ["--switchover", "now"]);
    expect(got).toMatchObject({
      exitCode: 1,
      error: { message: "the stress thread ended by itself" },
    });
    expect(sent).toMatchObject({ exitCode: 0, report: { outcome: "completed" } });
    // The trace sees what the others do not do: given back, and closed, once every page was there.
    expect(calls.at(0)).toContain("UFFDIO_UNREGISTER");
    expect(calls.at(-1)).toStartWith("close(");
  },
);

sourceTest("source: its migration thread ends in precopy: the guest goes on there", async () => {
  await using directory = new TemporaryDirectory("mortal");
  const file = directory.file("die");
  await using dest = await startDest();
  const slow = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"];
  const words = ["source", "--json", "--guest", GUEST, "--to", dest.peer, ...slow];
  await using source = new Role<SourceReport>(spawn(mortal("migration", file, ...words)));
  await source.phase("precopy");
  writeFileSync(file, "");
  const sent = await source.end();
  expect(sent).toMatchObject({ exitCode: 1, stayed: { pagesChecked: COUNT, pagesWrong: 0 } });
  expect(sent.stayed?.operations).toBeGreaterThan(0);
});

async function loseSourceThread(thread: string): Promise<void> {
  await using directory = new TemporaryDirectory("mortal");
  const file = directory.file("die");
  await using dest = await startDest({ flags: NO_RECOVERY });
  const words = ["source", "--json", "--guest", GUEST, "--to", dest.peer, ...SLOW];
  await using source = new Role<SourceReport>(spawn(mortal(thread, file, ...words)));
  await dest.event("running");
  writeFileSync(file, "");
  const [got, sent] = await Promise.all([dest.end(), source.end()]);
  expect(sent).toMatchObject({ exitCode: 1, stayed: undefined, report: { outcome: "failed" } });
  expect(sent.error?.message).toContain("the guest is at the destination");
  expect(sent.error?.message).toEndWith(`the ${thread} thread ended by itself`);
  expect(got).toMatchObject({ exitCode: 1, error: { code: "PEER_CLOSED" } });
  expect(got.stderr).toContain("The guest ran here and ends with this process");
}

sourceTest("source: a thread of its own ends in postcopy: both ends say so", async () => {
  await Promise.all(["migration", "return-path"].map(loseSourceThread));
});

const multifdTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());

multifdTest("dest: its multifd thread ends in precopy: QEMU's guest goes on", async () => {
  await using directory = new TemporaryDirectory("mortal");
  const file = directory.file("die");
  const [guest, listen] = [`snapshot:${directory.file("kept")}`, "tcp:127.0.0.1:0"];
  const words = ["dest", "--json", "--guest", guest, "--listen", listen];
  await using dest = new Role<DestReport>(spawn(mortal("multifd", file, ...words)));
  const { peer } = await dest.event("listening");
  await using qemu = await startQemu({ program: qemuProgram("11.1"), memoryMib: 32 });
  await enablePostcopy(qemu, { multifd: true });
  await qemu.qmp.execute("migrate-set-parameters", { "max-bandwidth": 1024 * 1024 });
  await qemu.qmp.execute("migrate", { uri: peer });
  await dest.event("guest");
  writeFileSync(file, "");
  expect(await dest.end()).toMatchObject({
    exitCode: 1,
    error: { message: "the multifd thread ended by itself" },
  });
  await qemu.qmp.waitForEvent("MIGRATION", { accept: ({ data }) => data["status"] === "failed" });
  const { running } = await qemu.qmp.execute<{ running: boolean }>("query-status");
  expect(running).toBe(true);
});

/** Both ends of a migration over TLS, one of which has the thread of it that dies with `file`. */
class TlsPair implements AsyncDisposable {
  readonly #place = new TemporaryDirectory("mortal");
  readonly #certificates = makeCertificates();
  readonly #roles: AsyncDisposable[] = [];
  readonly #tls = ["--tls", this.#certificates.path];

  #start<Report>(mortalHere: boolean, ...words: string[]): Role<Report> {
    const all = [...words, ...this.#tls];
    const command = mortalHere ? mortal("tls", this.#place.file("die"), ...all) : undefined;
    const role = new Role<Report>(spawn(command ?? postcopyCommand(...all)));
    this.#roles.push(role);
    return role;
  }

  async dest(options: { mortal: boolean }): Promise<{ dest: Role<DestReport>; peer: string }> {
    const words = ["dest", "--json", "--guest", "stress", "--listen", "tcp:127.0.0.1:0"];
    const dest = this.#start<DestReport>(options.mortal, ...words);
    const { peer } = await dest.event("listening");
    return { dest, peer };
  }

  source(peer: string, options: { mortal: boolean }): Role<SourceReport> {
    const slow = ["--switchover", "now", "--max-postcopy-bandwidth", "256KiB/s"];
    const words = ["source", "--json", "--guest", GUEST, "--to", peer, ...slow];
    return this.#start(options.mortal, ...words);
  }

  endThread(): void {
    writeFileSync(this.#place.file("die"), "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const role of this.#roles) await role[Symbol.asyncDispose]();
    await this.#certificates[Symbol.asyncDispose]();
    await this.#place[Symbol.asyncDispose]();
  }
}

sourceTest("dest: its TLS thread ends while it waits: it says so, and ends", async () => {
  await using pair = new TlsPair();
  const { dest } = await pair.dest({ mortal: true });
  pair.endThread();
  const { exitCode, error } = await dest.end();
  expect(exitCode).toBe(1);
  expect(error?.message).toContain("the tls thread ended by itself");
});

sourceTest("dest: its TLS thread ends in postcopy: the guest is not ended by it", async () => {
  await using pair = new TlsPair();
  const { dest, peer } = await pair.dest({ mortal: true });
  const source = pair.source(peer, { mortal: false });
  await dest.event("running");
  pair.endThread();
  const { message } = await dest.event("warning", ({ code }) => code === "TLS_LOST");
  expect(message).toContain("the tls thread ended by itself: no source can come any more");
  await dest.phase("paused");
  await source.phase("paused");
  // Only who insists ends it.
  dest.program.kill("SIGINT");
  await dest.program.stderr.waitForLine(/Interrupt once more/);
  dest.program.kill("SIGINT");
  expect(await dest.end()).toMatchObject({ exitCode: 130 });
});

sourceTest("source: its TLS thread ends in postcopy: it tries no more, and says why", async () => {
  await using pair = new TlsPair();
  const { dest, peer } = await pair.dest({ mortal: false });
  const source = pair.source(peer, { mortal: true });
  await dest.event("running");
  pair.endThread();
  const sent = await source.end();
  expect(sent).toMatchObject({ exitCode: 1, stayed: undefined, report: { outcome: "failed" } });
  expect(sent.error?.message).toContain("the guest is at the destination");
  expect(sent.error?.message).toEndWith("the tls thread ended by itself");
  await dest.phase("paused");
});
