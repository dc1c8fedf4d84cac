/**
 * The memory of a VMM is filled, byte for byte, with that of a guest which a real QEMU ran, while the
 * VMM reads it, gives it back, moves and unmaps it. The VMM is examples/vmm.c, which checks every byte.
 */
import { afterAll, expect } from "bun:test";
import { existsSync } from "node:fs";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, RoleEnd } from "../helpers/migration.ts";
import { needCompiler, needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { keptMemory, removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";
import type { VmmReport } from "../helpers/vmm.ts";

const HUGE = 2 * 1024 * 1024;
/** Huge pages of the guest, and one for what the kernel needs beside. */
const HUGE_PAGES = 17;

const needs = [needQemu(), needUserfaultfd(), needCompiler()] as const;
const vmmTest = requireOrSkip(...needs);
const hugeTest = requireOrSkip(...needs, needHugePages(HUGE_PAGES));
afterAll(removeVmm);

/** A destination that waits for a VMM, and one that has come. */
interface Pair extends AsyncDisposable {
  dest: DestRole;
  vmm: RunningProgram;
}

async function startPair(words: readonly string[], listen = "tcp:127.0.0.1:0"): Promise<Pair> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(new TemporaryDirectory("vmm-pair"));
  const socket = directory.file("vmm");
  const { file } = await keptMemory();
  const dest = stack.use(await startDest({ guest: `uffd:${socket}`, listen }));
  const vmm = stack.use(await startVmm(socket, "--expect", file, ...words));
  await dest.event("handover");
  expect(existsSync(socket)).toBe(false);
  const all = stack.move();
  return { dest, vmm, [Symbol.asyncDispose]: async () => await all.disposeAsync() };
}

interface Filled {
  vmm: VmmReport;
  source: RoleEnd<SourceReport>;
  dest: RoleEnd<DestReport>;
}

/** Fills a VMM from the guest that was kept; all three end well, and no byte is wrong. */
async function fill(words: readonly string[], listen?: string): Promise<Filled> {
  const { guest, bytes } = await keptMemory();
  await using pair = await startPair(words, listen);
  await using source = startSource({ guest, to: pair.dest.peer });
  const [report, sourceEnd, destEnd] = await Promise.all([
    vmmReport(pair.vmm),
    source.end(),
    pair.dest.end(),
  ]);
  for (const { exitCode, stderr } of [sourceEnd, destEnd]) {
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  }
  expect(report).toMatchObject({ exitCode: 0, wrongPages: 0 });
  expect(destEnd.report).toMatchObject({ outcome: "completed", completedIn: "postcopy" });
  expect(destEnd.report.pages.missing).toBe(0);
  expect(destEnd.report.memory.guestBytes).toBeGreaterThan(bytes);
  return { vmm: report, source: sourceEnd, dest: destEnd };
}

/** Each of the handshake's generations, and each number of threads, by way of tcp and of a unix socket. */
const CASES: [name: string, words: readonly string[], pages: number][] = [
  ["1 thread, by Firecracker's first message", ["--generation", "1"], 8192],
  [
    "4 threads and a balloon, three regions, by its second message in pieces",
    ["--threads", "4", "--discard", "300", "--generation", "2", "--regions", "3", "--pieces", "17"],
    8192,
  ],
  ["16 threads, by its third message", ["--threads", "16", "--generation", "3"], 8192],
  [
    "16 threads and a balloon, in a memory file",
    ["--threads", "16", "--discard", "300", "--memfd", "--regions", "2"],
    8192,
  ],
];

for (const [name, words, pages] of CASES) {
  vmmTest(
    `a VMM of ${name} is filled byte for byte`,
    async () => {
      const { vmm, dest } = await fill(words);
      expect(vmm.pages).toBe(pages);
      // What the VMM has no memory for (video memory, firmware) was not placed anywhere.
      const elsewhere = dest.report.pages.total - pages;
      expect(elsewhere).toBeGreaterThan(0);
      expect(dest.report.pages.dropped).toBeGreaterThanOrEqual(elsewhere);
      expect(dest.report.faults.remote).toBeGreaterThan(0);
      if (words.includes("--discard")) {
        expect(vmm.discarded).toBe(300);
        expect(dest.report.pages.removed).toBeGreaterThan(0);
      }
    },
    LONG_TEST_MS,
  );
}
