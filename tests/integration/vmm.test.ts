/**
 * The memory of a VMM is filled, byte for byte, with that of a guest which a real QEMU ran, while the
 * VMM reads it, gives it back, moves and unmaps it. The VMM is examples/vmm.c, which checks every byte.
 */
import { afterAll, expect } from "bun:test";
import { existsSync } from "node:fs";
import { readManifest } from "../../src/guests/snapshot/manifest.ts";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { RAM_SECTION_ID } from "../../src/source/stream.ts";
import { chosenValue, FEATURE, helloValue, tokenValues } from "../../src/stream/hello.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  advise,
  discard,
  opening,
  openReturnPath,
  ping,
  ramStart,
} from "../helpers/hand-made-stream.ts";
import type { Piece } from "../helpers/hand-made-stream.ts";
import { HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { NO_RECOVERY, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, RoleEnd } from "../helpers/migration.ts";
import { needCompiler, needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { keptMemory, removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";
import type { VmmReport } from "../helpers/vmm.ts";

const PAGE = 4096;
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

async function startPair(
  words: readonly string[],
  listen?: "unix",
  flags: readonly string[] = [],
): Promise<Pair> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(new TemporaryDirectory("vmm-pair"));
  const socket = directory.file("vmm");
  const { file } = await keptMemory();
  const peer = listen === undefined ? "tcp:127.0.0.1:0" : `unix:${directory.file("source")}`;
  const dest = stack.use(await startDest({ guest: `uffd:${socket}`, listen: peer, flags }));
  const vmm = stack.use(await startVmm(socket, "--expect", file, "--hold", ...words));
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

/**
 * Fills a VMM from the guest that was kept; all three end well, and no byte is wrong. `flags` are those of
 * both ends.
 */
async function fill(
  words: readonly string[],
  listen?: "unix",
  flags: readonly string[] = [],
): Promise<Filled> {
  const { guest, bytes } = await keptMemory();
  await using pair = await startPair(words, listen, flags);
  await using source = startSource({ guest, to: pair.dest.peer, flags });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), pair.dest.end()]);
  for (const { exitCode, stderr } of [destEnd, sourceEnd]) {
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  }
  // Its memory is its own from here on.
  pair.vmm.writeLine("");
  const report = await vmmReport(pair.vmm);
  expect(report).toMatchObject({ exitCode: 0, wrongPages: 0 });
  expect(destEnd.report).toMatchObject({ outcome: "completed", completedIn: "postcopy" });
  expect(destEnd.report.memory.guestBytes).toBeGreaterThan(bytes);
  return { vmm: report, source: sourceEnd, dest: destEnd };
}

/**
 * Each generation of the handshake, and each number of threads. Memory that the VMM takes elsewhere, or
 * back, is followed; what others have put into its memory file is mapped, and not overwritten.
 */
const CASES: [name: string, words: readonly string[], listen?: "unix"][] = [
  ["1 thread, by Firecracker's first message", ["--generation", "1"]],
  [
    "4 threads, whose memory is moved, by its second message in pieces",
    [
      ...["--threads", "4", "--regions", "3", "--change", "remap"],
      ...["--generation", "2", "--pieces", "17"],
    ],
  ],
  [
    "16 threads and a balloon, whose memory is unmapped, by its third message",
    [
      ...["--threads", "16", "--discard", "60", "--regions", "2", "--change", "unmap"],
      ...["--generation", "3"],
    ],
  ],
  [
    "16 threads and a balloon, in a memory file that is there in part, and moved, by its fourth",
    [
      ...["--generation", "4"],
      ...["--threads", "16", "--discard", "60", "--regions", "3", "--change", "remap"],
      ...["--memfd", "--cached", "3"],
    ],
    "unix",
  ],
  [
    "1 thread and a balloon that leaves in its memory file what is there (MADV_DONTNEED)",
    ["--memfd", "--discard", "60", "--dontneed"],
  ],
];

for (const [name, words, listen] of CASES) {
  vmmTest(
    `a VMM of ${name} is filled byte for byte`,
    async () => {
      const { bytes } = await keptMemory();
      const { vmm, dest } = await fill(words, listen);
      const all = bytes / PAGE;
      expect(vmm.pages).toBe(words.includes("unmap") ? (all * 3) / 4 : all);
      // What the VMM has no memory for (video memory, firmware) was not placed anywhere.
      const elsewhere = dest.report.pages.total - all;
      expect(elsewhere).toBeGreaterThan(0);
      expect(dest.report.pages.dropped).toBeGreaterThanOrEqual(elsewhere);
      expect(dest.report.faults.remote).toBeGreaterThan(0);
      // Whoever maps the file as well is warned, and nobody else of anything.
      const warned = dest.events.flatMap((each) => (each.event === "warning" ? [each.code] : []));
      const vmmWarned = warned.filter((code) => code.startsWith("VMM_"));
      expect(vmmWarned).toEqual(words.includes("--memfd") ? ["VMM_SHARED"] : []);
      expect(vmm.discarded > 0).toBe(words.includes("--discard"));
      if (!words.includes("--discard")) expect(dest.report.pages.removed).toBe(0);
      if (words.includes("--cached")) expect(dest.report.places.exists).toBeGreaterThan(0);
    },
    LONG_TEST_MS,
  );
}

vmmTest(
  "pages come on four channels while a VMM gives memory back and moves it",
  async () => {
    const change = ["--regions", "3", "--change", "remap"];
    const words = ["--threads", "4", "--discard", "60", ...change];
    const { source, dest } = await fill(words, undefined, ["--channels", "4"]);
    expect([source.report.pushChannels, dest.report.pushChannels]).toEqual([4, 4]);
    expect(dest.report.pages.removed).toBeGreaterThan(0);
  },
  LONG_TEST_MS,
);

/** The cases above have a part of it; all of it takes a quarter of a minute. */
const matrixTest = process.env["POSTCOPY_VMM_MATRIX"] === "1" ? hugeTest : undefined;
for (const pageSize of [PAGE, HUGE]) {
  for (const threads of ["1", "4", "16"]) {
    for (const balloon of [[], ["--discard", "60"]]) {
      const what = `${threads} threads, ${balloon.length > 0 ? "a" : "no"} balloon`;
      matrixTest?.(`a VMM of pages of ${pageSize} bytes is filled: ${what}`, async () => {
        await using _pages = pageSize === HUGE ? await HugePages.add(HUGE_PAGES) : undefined;
        await fill(["--page-size", String(pageSize), "--threads", threads, ...balloon]);
      });
    }
  }
}

vmmTest(
  "what is in a VMM's memory file already is mapped at once, whatever is still to come",
  async () => {
    const { guest } = await keptMemory();
    await using pair = await startPair(["--memfd", "--cached", "1", "--threads", "4"]);
    // All of it would take minutes.
    const flags = ["--max-postcopy-bandwidth", "100KiB/s"];
    await using _source = startSource({ guest, to: pair.dest.peer, flags });
    const [said] = await pair.vmm.stdout.waitForLine(/.*wrongPages.*/);
    expect(JSON.parse(said)).toMatchObject({ wrongPages: 0 });
  },
  LONG_TEST_MS,
);

hugeTest(
  "a VMM of huge pages is filled by whole ones, asked for and pushed",
  async () => {
    await using _pages = await HugePages.add(HUGE_PAGES);
    const { bytes } = await keptMemory();
    const balloon = ["--discard", "20", "--regions", "2"];
    for (const words of [
      ["--threads", "1", ...balloon, "--change", "unmap"],
      ["--threads", "4", ...balloon, "--change", "remap"],
      ["--threads", "16", "--memfd", "--cached", "3"],
    ]) {
      // Its source has the guest in pages of 4 KiB: each thread that sends learns what they are now.
      const channels = words.includes("remap") ? "3" : "1";
      const flags = ["--channels", channels];
      const all = ["--page-size", String(HUGE), ...words];
      const { vmm, dest } = await fill(all, undefined, flags);
      expect(dest.report.pushChannels).toBe(Number(channels));
      const share = words.includes("unmap") ? 3 / 4 : 1;
      expect(vmm.pages).toBe((share * bytes) / HUGE);
      expect(dest.report.faults.remote).toBeLessThanOrEqual(bytes / HUGE);
    }
  },
  LONG_TEST_MS,
);

for (const [change, code] of [
  ["fork", "VMM_FORKED"],
  ["protect", "WRITE_PROTECTED"],
] as const) {
  vmmTest(
    `a VMM that does what its memory cannot be filled under (${change}) is named, and killed`,
    async () => {
      const { guest } = await keptMemory();
      await using pair = await startPair(["--threads", "2", "--change", change]);
      // Slowly: the VMM does it while pages are missing.
      const flags = ["--max-postcopy-bandwidth", "4MiB/s", ...NO_RECOVERY];
      await using source = startSource({ guest, to: pair.dest.peer, flags });
      const { exitCode, error, events } = await pair.dest.end();
      expect({ exitCode, error }).toMatchObject({ exitCode: 1, error: { code } });
      expect(events).toContainEqual(
        expect.objectContaining({ event: "warning", code: "VMM_KILLED" }),
      );
      expect(await pair.vmm.finish()).toMatchObject({ signal: "SIGKILL", stdout: "" });
      expect((await source.end()).exitCode).toBe(4);
    },
    LONG_TEST_MS,
  );
}

vmmTest(
  "a source that sends a running guest is turned away by name, and the right one is taken",
  async () => {
    const { guest } = await keptMemory();
    await using pair = await startPair([]);
    await using wrong = startSource({ to: pair.dest.peer });
    const warning = await pair.dest.event("warning");
    expect(warning.message).toContain("The source sends a stress guest");
    // That guest goes on where it is, and is whole.
    const end = await wrong.end();
    expect(end).toMatchObject({ exitCode: 1, stayed: { pagesWrong: 0 } });
    await using right = startSource({ guest, to: pair.dest.peer });
    expect((await pair.dest.end()).exitCode).toBe(0);
    expect((await right.end()).exitCode).toBe(0);
    pair.vmm.writeLine("");
    expect(await vmmReport(pair.vmm)).toMatchObject({ exitCode: 0, wrongPages: 0 });
  },
  LONG_TEST_MS,
);

/** What a source of the guest that was kept says before LISTEN. */
function beginning(directory: string): Piece[] {
  const blocks = readManifest(directory).blocks.map(({ name, length }) => {
    return { name, length, pageSize: PAGE };
  });
  return [
    ...[opening("pc"), openReturnPath, ping(helloValue(FEATURE.smallPages)), advise()],
    ramStart(blocks, RAM_SECTION_ID),
    ...[...tokenValues(1), chosenValue(FEATURE.smallPages | FEATURE.urgentChannel)].map(ping),
    ...blocks.map(({ name, length }) => discard(name, { start: 0, length })),
  ];
}

vmmTest(
  "a source that is lost before LISTEN costs no VMM: the next one is taken",
  async () => {
    const { guest } = await keptMemory();
    await using pair = await startPair(["--threads", "4", "--discard", "60"]);
    for (const _ of [1, 2]) {
      await using lost = await HandMadePeer.connect(pair.dest.peer);
      lost.send(...beginning(guest.slice("snapshot:".length)));
      lost.endWriting();
      await lost.otherEnd();
    }
    await using right = startSource({ guest, to: pair.dest.peer });
    const ends = await Promise.all([right.end(), pair.dest.end()]);
    for (const { exitCode, stderr } of ends) {
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    }
    pair.vmm.writeLine("");
    expect(await vmmReport(pair.vmm)).toMatchObject({ exitCode: 0, wrongPages: 0 });
  },
  LONG_TEST_MS,
);

vmmTest(
  "a VMM of 4 threads and a balloon is filled from a snapshot by one process (--from)",
  async () => {
    const { guest, file } = await keptMemory();
    await using directory = new TemporaryDirectory("vmm-from");
    const socket = directory.file("vmm");
    await using dest = await startDest({ guest: `uffd:${socket}`, from: guest });
    const words = ["--threads", "4", "--discard", "60", "--regions", "2"];
    await using vmm = await startVmm(socket, "--expect", file, "--hold", ...words);
    const { exitCode, stderr } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    vmm.writeLine("");
    expect(await vmmReport(vmm)).toMatchObject({ exitCode: 0, wrongPages: 0 });
  },
  LONG_TEST_MS,
);
