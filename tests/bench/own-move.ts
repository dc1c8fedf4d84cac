/** Our own ends, which move their own guest by post-copy alone, over loopback TCP. */
import { moveStress } from "../../src/bench/stress-move.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { CpuMeter } from "./cpu-meter.ts";
import { GIB } from "./qemu-move.ts";
import type { GuestActivity, Move } from "./qemu-move.ts";

/** A dest that listens for a guest. */
export function startOurDest(guest: string): RunningProgram {
  const words = ["--guest", guest, "--listen", "tcp:127.0.0.1:0", "--json"];
  return spawn(postcopyCommand("dest", ...words), { lifeMs: LONG_TEST_MS });
}

/** Where it listens. */
export async function peerOf(dest: RunningProgram): Promise<string> {
  const { 1: peer = "" } = await dest.stdout.waitForLine(/"event":"listening".*"peer":"([^"]+)"/);
  return peer;
}

/**
 * No page is left zero, as none of QEMU's guest is. An idle guest of ours cannot stand still; this is
 * next to it. The move begins as soon as it has written once.
 */
function guestOf(memoryMib: number, activity: GuestActivity): string {
  const rate = activity === "idle" ? ",rate=64KiB/s" : "";
  return `stress:size=${memoryMib}MiB,zero=0,duration=10ms${rate}`;
}

/** Ours to ours; CPU time is that of both ends, from the switch to postcopy until all pages are there. */
export async function moveByOurs(memoryMib: number, activity: GuestActivity): Promise<Move> {
  let meter: CpuMeter | undefined;
  let cpuSeconds = Number.NaN;
  const seen = (event: string, source: number, dest: number): void => {
    if (event === "switchover") meter = new CpuMeter(source, dest);
    if (event === "drained") cpuSeconds = meter?.seconds() ?? Number.NaN;
  };
  try {
    const flags = ["--switchover", "now"];
    const { source } = await moveStress(guestOf(memoryMib, activity), flags, { seen });
    const { rates, bytes } = source;
    const cpuSecondsPerGib = (cpuSeconds / (bytes.postcopy + bytes.requested)) * GIB;
    return { bytesPerSecond: rates.postcopy ?? Number.NaN, cpuSecondsPerGib };
  } finally {
    meter?.[Symbol.dispose]();
  }
}
