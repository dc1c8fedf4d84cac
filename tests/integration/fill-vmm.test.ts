/**
 * The memory of a VMM (examples/vmm.c, which checks every byte) filled from Firecracker's memory files:
 * in one process, and by a source over TLS that is killed on the way.
 */
import { afterAll, expect } from "bun:test";
import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { makeCertificates } from "../helpers/certificates.ts";
import { memoryOf, PAGE_BYTES, writeMemoryFile } from "../helpers/memory-files.ts";
import type { Contents } from "../helpers/memory-files.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needCompiler, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";

const fillTest = requireOrSkip(needUserfaultfd(), needCompiler());
afterAll(removeVmm);

/** 16 MiB. */
const PAGES = 4096;
/** What a VMM touches before it waits. */
const FIRST = 64;

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
    for (let page = 500; page < PAGES; page++) full[page] = 1 + (page % 120);
    for (let page = 0; page < PAGES; page += 5) diff[page] = 121 + (page % 120);
    writeMemoryFile(this.full, PAGES, full);
    writeMemoryFile(this.diff, PAGES, diff);
    const bytes = memoryOf(PAGES, full, diff);
    writeFileSync(this.whole, Buffer.concat(bytes.map((byte) => Buffer.alloc(PAGE_BYTES, byte))));
  }
}

/** Fills a VMM that touches some pages, waits until all are there, and then reads everything. */
async function fill(saved: Saved, flags: readonly string[] = []) {
  await using dest = await startDest({ guest: `uffd:${saved.socket}`, from: saved.guest, flags });
  const words = ["--expect", saved.whole, "--first", String(FIRST)];
  await using vmm = await startVmm(saved.socket, ...words);
  const { exitCode, stderr, report } = await dest.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  vmm.writeLine("");
  expect(await vmmReport(vmm)).toMatchObject({ exitCode: 0, pages: PAGES, wrongPages: 0 });
  return report;
}

fillTest("from a full file and a diff, in one process; the second time in order", async () => {
  await using saved = new Saved();
  const page = saved.file("report.html");
  const first = await fill(saved, ["--report", page]);
  expect(first).toMatchObject({
    ...{ guest: `VMM at ${saved.socket}`, outcome: "completed" },
    peer: `memory of a Firecracker microVM in ${saved.full}, ${saved.diff}`,
    pages: { total: PAGES },
  });
  // It asked before anything was pushed, as nothing was known of it.
  expect(first.faults.remote).toBe(FIRST);
  expect(first.faults.latencyNs?.count).toBe(FIRST);
  expect(readFileSync(page, "utf8")).toStartWith("<!doctype html>");
  // What it asked for was sent before it could ask.
  const second = await fill(saved);
  expect(second.faults.remote).toBeLessThan(FIRST / 2);
});

fillTest("over TLS, by a source that is killed: the VMM waits, and the rest comes", async () => {
  await using saved = new Saved();
  await using certificates = makeCertificates();
  const tls = ["--tls", certificates.path];
  const flags = [...tls, "--journal", saved.file("journal")];
  await using dest = await startDest({ guest: `uffd:${saved.socket}`, flags: tls });
  const words = ["--expect", saved.whole, "--threads", "4", "--first", "8"];
  await using vmm = await startVmm(saved.socket, ...words);
  {
    const slow = [...flags, "--max-postcopy-bandwidth", "512KiB/s"];
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
  expect(await vmmReport(vmm)).toMatchObject({ exitCode: 0, pages: PAGES, wrongPages: 0 });
});

fillTest("from a file that changes meanwhile: one sentence says which", async () => {
  await using saved = new Saved();
  const flags = ["--max-postcopy-bandwidth", "1MiB/s"];
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
