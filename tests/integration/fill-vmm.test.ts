/**
 * The memory of a VMM (examples/vmm.c, which checks every byte) filled from Firecracker's memory files:
 * in one process, and by a source over TLS that is killed on the way.
 */
import { afterAll, expect } from "bun:test";
import { closeSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { memoryWorkingSetPath, openMemory } from "../../src/guests/firecracker/open.ts";
import { readWorkingSet } from "../../src/guests/stored/working-set.ts";
import { makeCertificates } from "../helpers/certificates.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { expectFrozen, placedPages } from "../helpers/filled-vmm.ts";
import { memoryOf, PAGE_BYTES, writeMemoryFile } from "../helpers/memory-files.ts";
import type { Contents } from "../helpers/memory-files.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needCompiler, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";

const fillTest = requireOrSkip(needUserfaultfd(), needCompiler());
afterAll(removeVmm);

/** 4 MiB. */
const PAGES = 1024;
/** What a VMM touches before it waits. */
const FIRST = 256;
/** No page is pushed to a guest of which nothing is known before it has been quiet for so long. */
const QUIET_MS = 200;
/** What is there early is there because it goes first, and nothing overtakes it. */
const ONE_SLOW_CHANNEL = ["--max-postcopy-bandwidth", "2MiB/s", "--channels", "1"] as const;

/** A microVM that was saved, and saved again: its files as a GUEST, and what it holds as a file. */
class Saved extends TemporaryDirectory {
  readonly socket = this.file("socket");
  readonly full = this.file("full");
  readonly diff = this.file("diff");
  readonly whole = this.file("whole");
  readonly guest = `firecracker:${this.full},${this.diff}`;

  constructor() {
    super("saved");
    const full: Contents = {};
    const diff: Contents = {};
    for (let page = 125; page < PAGES; page++) full[page] = 1 + (page % 120);
    for (let page = 0; page < PAGES; page += 5) diff[page] = 121 + (page % 120);
    writeMemoryFile(this.full, PAGES, full);
    writeMemoryFile(this.diff, PAGES, diff);
    const bytes = memoryOf(PAGES, full, diff);
    writeFileSync(this.whole, Buffer.concat(bytes.map((byte) => Buffer.alloc(PAGE_BYTES, byte))));
  }
}

/** Lets a VMM read everything whose pages are all there: each is as it was saved. */
async function expectWhole(vmm: RunningProgram, dest: DestRole) {
  const { exitCode, stderr, report } = await dest.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  vmm.writeLine("");
  expect(await vmmReport(vmm)).toMatchObject({ exitCode: 0, pages: PAGES, wrongPages: 0 });
  return report;
}

/** The pages that are recorded of a guest, in the order in which they are worth sending. */
function recordedOf({ full, diff }: Saved): number[] {
  const opened = openMemory([full, diff]);
  for (const { descriptor } of opened.layers) closeSync(descriptor);
  const recorded = readWorkingSet(memoryWorkingSetPath([full, diff]), opened.blocks);
  return typeof recorded === "object" ? [...recorded] : [];
}

/**
 * Waits until a VMM that touches nothing has another page than those: whatever is there is only there
 * once all that goes before it is.
 */
async function expectInOrder(vmm: RunningProgram, recorded: readonly number[]): Promise<void> {
  const ranks = new Map(recorded.map((page, rank) => [page, rank]));
  const look = (): boolean => {
    const seen = [...placedPages(vmm, PAGES)];
    // Looked at later, as one look takes its time.
    const now = placedPages(vmm, PAGES);
    const before = Math.max(0, ...seen.map((page) => ranks.get(page) ?? recorded.length));
    expect(recorded.slice(0, before).filter((page) => !now.has(page))).toEqual([]);
    return seen.some((page) => !ranks.has(page));
  };
  await waitUntil(look, "a page that was not recorded");
}

fillTest("from a full file and a diff, in one process; the second time in order", async () => {
  await using saved = new Saved();
  const page = saved.file("report.html");
  const start = { guest: `uffd:${saved.socket}`, from: saved.guest };
  const words = ["--expect", saved.whole, "--first", String(FIRST)];
  {
    await using dest = await startDest({ ...start, flags: ["--report", page] });
    await using vmm = await startVmm(saved.socket, ...words, "--early");
    await expectFrozen(vmm);
    vmm.writeLine("hand over");
    const first = await expectWhole(vmm, dest);
    expect(first).toMatchObject({
      ...{ guest: `VMM at ${saved.socket}`, outcome: "completed" },
      peer: `memory of a Firecracker microVM in ${saved.full}, ${saved.diff}`,
      pages: { total: PAGES },
    });
    expect(readFileSync(page, "utf8")).toStartWith("<!doctype html>");
    // As nothing was known of it nothing was pushed before it had asked for nothing for a while.
    expect(first.times.postcopy).toBeGreaterThan(QUIET_MS);
    expect(first.faults.remote).toBeLessThanOrEqual(FIRST);
    expect(first.faults.latencyNs?.count).toBe(first.faults.remote);
    // It waited before anybody filled its memory; how far it came before the push is its own affair.
    expect(recordedOf(saved).length).toBeWithin(1, first.faults.remote + 1);
  }
  const recorded = recordedOf(saved);
  await using dest = await startDest({ ...start, flags: ONE_SLOW_CHANNEL });
  await using vmm = await startVmm(saved.socket, ...words, "--wait");
  await dest.event("handover");
  await expectInOrder(vmm, recorded);
  vmm.writeLine("read");
  const second = await expectWhole(vmm, dest);
  // What it asked for is there before it can ask.
  expect(second.faults.remote).toBeLessThanOrEqual(FIRST - recorded.length);
});

fillTest("over TLS, by a source that is killed: the VMM waits, and the rest comes", async () => {
  await using saved = new Saved();
  await using certificates = makeCertificates();
  const tls = ["--tls", certificates.path];
  const flags = [...tls, "--journal", saved.file("journal")];
  await using dest = await startDest({ guest: `uffd:${saved.socket}`, flags: tls });
  const words = ["--expect", saved.whole, "--threads", "4", "--first", "8", "--hold"];
  await using vmm = await startVmm(saved.socket, ...words);
  {
    const slow = [...flags, "--max-postcopy-bandwidth", "128KiB/s"];
    await using source = startSource({ guest: saved.guest, to: dest.peer, flags: slow });
    await dest.event("running");
    source.program.kill("SIGKILL");
  }
  await dest.phase("paused");
  // It touches pages that nobody can bring yet.
  vmm.writeLine("");
  await using again = startSource({ guest: saved.guest, to: dest.peer, flags });
  expect((await again.end()).error?.code).toBe("SPLIT_BRAIN");
  await using rest = startSource({
    ...{ guest: saved.guest, to: dest.peer },
    flags: [...flags, "--resume"],
  });
  const [sent, got] = await Promise.all([rest.end(), dest.end()]);
  expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(got.report.peer).toStartWith("tcp:127.0.0.1:");
  // One that has read everything may not end before that is known to be everything.
  vmm.writeLine("end");
  expect(await vmmReport(vmm)).toMatchObject({ exitCode: 0, pages: PAGES, wrongPages: 0 });
});

fillTest("from a file that changes meanwhile: one sentence says which", async () => {
  await using saved = new Saved();
  const flags = ["--max-postcopy-bandwidth", "256KiB/s"];
  const fillFrom = { guest: `uffd:${saved.socket}`, from: saved.guest, flags };
  await using dest = await startDest(fillFrom);
  await using vmm = await startVmm(saved.socket, "--expect", saved.whole, "--first", "8");
  await dest.event("running");
  utimesSync(saved.full, 1, 1);
  const { exitCode, error } = await dest.end();
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "DAMAGED_FILE" });
  expect(error?.message).toMatch(/^The page at \d+ of .*full has changed since it was opened$/);
  expect(vmm.stdout.text).toBe("");
});
