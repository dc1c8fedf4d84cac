/**
 * A VMM that hands its memory over: examples/vmm.c, built once a test file; and the memory of a guest
 * of a real QEMU to fill it with, kept once a test file.
 */
import { join } from "node:path";
import { buildBootSector } from "./boot-sector.ts";
import { captureQemu, enablePostcopy } from "./qemu-snapshot.ts";
import { startQemu } from "./qemu.ts";
import { PROJECT_ROOT, run, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** What the VMM reports at its end. */
export interface VmmReport {
  pages: number;
  pagesRead: number;
  wrongPages: number;
  discarded: number;
  /** First touches by how long they took: of [2^N, 2^(N+1)) microseconds. */
  firstTouches: number[];
}

/** Memory of the guest that is kept: room for the range in which it counts, and whole huge pages. */
const GUEST_MIB = 32;

/** What is made once a test file; several test files share this module. */
let directory: TemporaryDirectory | undefined;
let program: Promise<string> | undefined;
let kept: Promise<KeptMemory> | undefined;

/** Removes what was built and kept; for `afterAll`. */
export async function removeVmm(): Promise<void> {
  await directory?.[Symbol.asyncDispose]();
  directory = program = kept = undefined;
}

function place(name: string): string {
  directory ??= new TemporaryDirectory("vmm");
  return directory.file(name);
}

async function build(): Promise<string> {
  const path = place("vmm");
  const source = join(PROJECT_ROOT, "examples", "vmm.c");
  const flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];
  const { exitCode, stderr } = await run(["cc", ...flags, "-o", path, source]);
  if (exitCode !== 0) throw new Error(`examples/vmm.c was not built:\n${stderr}`);
  return path;
}

/** Starts a VMM that hands its memory over at `socket`; `words` are those of its usage. */
export async function startVmm(socket: string, ...words: string[]): Promise<RunningProgram> {
  return spawn([await (program ??= build()), socket, ...words]);
}

/** A guest that was kept. */
export interface KeptMemory {
  /** As a GUEST of the source. */
  guest: string;
  /** Its RAM, pc.ram, as a file: the first block. */
  file: string;
  bytes: number;
}

async function keep(): Promise<KeptMemory> {
  const snapshot = place("guest");
  const bootSector = buildBootSector({ startAddress: 0x10_0000, endAddress: 0x1c0_0000 });
  await using qemu = await startQemu({ memoryMib: GUEST_MIB, bootSector });
  await enablePostcopy(qemu);
  await qemu.waitForRounds(3);
  await captureQemu(qemu, snapshot);
  const file = join(snapshot, "ram-0.bin");
  return { guest: `snapshot:${snapshot}`, file, bytes: GUEST_MIB * 2 ** 20 };
}

/** The memory of a guest of a real QEMU, kept while it counted. */
export async function keptMemory(): Promise<KeptMemory> {
  return await (kept ??= keep());
}

/** What a VMM found that has ended; fails where it says nothing. */
export async function vmmReport(vmm: RunningProgram): Promise<VmmReport & { exitCode: number }> {
  const { exitCode, signal, stdout, stderr } = await vmm.finish();
  if (exitCode === null || stdout === "") {
    throw new Error(`the VMM ended with ${exitCode ?? signal}:\n${stderr}`);
  }
  return { ...(JSON.parse(stdout) as VmmReport), exitCode };
}
