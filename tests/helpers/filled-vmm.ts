/** A VMM whose memory is filled, mostly so slowly that it waits for pages; and what is seen of it. */
import { expect } from "bun:test";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";

import type { DestReport } from "../../src/report/report.ts";
import { waitUntil } from "./deadline.ts";
import { Role, startSource } from "./migration.ts";
import type { DestRole, RoleEnd } from "./migration.ts";
import { PAGE_BYTES } from "./memory-files.ts";
import { postcopyCommand, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";
import type { TemporaryDirectory } from "./temporary-directory.ts";
import { keptMemory, vmmReport } from "./vmm.ts";

/** The push takes minutes: what the VMM reads it asks for. */
export const SLOW_PUSH = ["--max-postcopy-bandwidth", "256KiB/s", "--no-record"] as const;
/** A source that is gone for this long is gone. */
export const IMPATIENT = ["--recover-timeout", "1s"] as const;

/** In what is said of such a VMM: where it waits, in its own memory and in that of the guest. */
export const WAITING_PLACE =
  /faults on 1 page wait, the longest \(.+\) at offset (0x[\da-f]+) of region 0 \((0x[\da-f]+) of pc\.ram at the source\)/;

/** A directory with the socket of a VMM, and the memory that it is to have. */
export async function prepareVmm(directory: TemporaryDirectory) {
  return { socket: directory.file("vmm"), ...(await keptMemory()) };
}

/** Starts a dest that fills a VMM from files, slowly: what it reads it asks for. */
export async function startFilling(socket: string, from: string): Promise<DestRole> {
  const words = ["--guest", `uffd:${socket}`, "--from", from, ...SLOW_PUSH];
  const dest = new Role<DestReport>(spawn(postcopyCommand("dest", "--json", ...words)));
  await dest.event("listening");
  return dest;
}

/** The text of a warning; fails where there is none. */
export function warningOf(end: RoleEnd<unknown>, code: string): string {
  const found = end.events.find((event) => event.event === "warning" && event.code === code);
  if (found?.event !== "warning") throw new Error(`no ${code} in:\n${end.stderr}`);
  return found.message;
}

/** The function of the kernel that a thread waits in; none of one that has just ended. */
function waitingPlace(task: string): string {
  try {
    return readFileSync(join(task, "wchan"), "latin1");
  } catch (error) {
    if (existsSync(task)) throw error;
    return "";
  }
}

/** Waits until a thread of a VMM waits for a page (handle_userfault of the kernel). */
export async function expectFrozen(vmm: RunningProgram): Promise<void> {
  const tasks = `/proc/${vmm.pid}/task`;
  const waits = (): boolean =>
    readdirSync(tasks).some((task) => waitingPlace(join(tasks, task)).includes("userfault"));
  await waitUntil(waits, "a thread of the VMM that waits for a page");
  expect(vmm.running).toBe(true);
  expect({ stdout: vmm.stdout.text, stderr: vmm.stderr.text }).toEqual({ stdout: "", stderr: "" });
}

/** Loses the source of a VMM that is being filled, for good; returns how `dest` ended. */
export async function loseSource(
  vmm: RunningProgram,
  dest: DestRole,
): Promise<RoleEnd<DestReport>> {
  const { guest } = await keptMemory();
  await dest.event("handover");
  await using source = startSource({ guest, to: dest.peer, flags: SLOW_PUSH });
  await dest.phase("postcopy");
  // It waits for a page before its source is lost, as it is not waited for that for long.
  source.program.kill("SIGSTOP");
  vmm.writeLine("read");
  await expectFrozen(vmm);
  source.program.kill();
  return await dest.end();
}

/** Its balloon is at work all the time, and takes a tenth of the memory. It lives until it is told. */
export const READING = [
  "--threads",
  "2",
  "--discard",
  "60",
  "--pace",
  "20000",
  "--wait",
  "--hold",
] as const;

/** Lets a VMM end that has read everything: it found no byte wrong, and its balloon was at work. */
export async function expectRight(vmm: RunningProgram, bytes: number): Promise<void> {
  vmm.writeLine("end");
  const { discarded, ...report } = await vmmReport(vmm);
  expect(report).toMatchObject({ exitCode: 0, pages: bytes / PAGE_BYTES, wrongPages: 0 });
  expect(discarded).toBeGreaterThan(0);
}

/** Bytes of memory that a process has. */
export function residentBytes({ pid }: RunningProgram): number {
  return Number(readFileSync(`/proc/${pid}/statm`, "latin1").split(" ")[1]) * PAGE_BYTES;
}

/** Of an entry of /proc/PID/pagemap: the page is there (pagemap's bit 63, in its highest byte). */
const PRESENT = 0x80;
const ENTRY_BYTES = 8;

/** Which pages of its guest a VMM has in place, whose memory is one region of `pages` pages. */
export function placedPages({ pid }: RunningProgram, pages: number): Set<number> {
  const maps = readFileSync(`/proc/${pid}/maps`, "latin1").split("\n");
  const starts = maps.flatMap((line) => {
    // Anonymous memory has no name.
    const [, start = "", end = ""] = /^(\w+)-(\w+) rw-p 0+ 00:00 0 *$/.exec(line) ?? [];
    const first = Number.parseInt(start, 16) / PAGE_BYTES;
    return Number.parseInt(end, 16) / PAGE_BYTES - first === pages ? [first] : [];
  });
  const [first] = starts;
  if (first === undefined || starts.length > 1) throw new Error(`which one?\n${maps.join("\n")}`);
  const entries = Buffer.alloc(pages * ENTRY_BYTES);
  const fd = openSync(`/proc/${pid}/pagemap`, "r");
  const read = readSync(fd, entries, 0, entries.length, first * ENTRY_BYTES);
  closeSync(fd);
  if (read !== entries.length) throw new Error(`only ${read} bytes of /proc/${pid}/pagemap`);
  const isThere = (page: number): boolean =>
    ((entries[page * ENTRY_BYTES + ENTRY_BYTES - 1] ?? 0) & PRESENT) !== 0;
  return new Set(Array.from({ length: pages }, (_, page) => page).filter(isThere));
}

/** Starts a holder of descriptors at `socket`. */
export async function startHolder(socket: string): Promise<RunningProgram> {
  const holder = spawn(postcopyCommand("hold", "--socket", socket));
  await holder.stderr.waitForLine(/Waiting for descriptors/);
  return holder;
}
