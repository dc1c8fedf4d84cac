/** Our own ends, which move their own guest by post-copy alone, over loopback TCP. */
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { collectRun, destReportOf, sourceReportOf } from "../helpers/postcopy-run.ts";
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

/** What both ends said of a move. */
export interface BothReports {
  source: SourceReport;
  dest: DestReport;
  /** Of both ends, from the switch to postcopy until all pages are there. */
  cpuSeconds: number;
}

/** Moves a stress guest by post-copy alone; fails if a page did not arrive as it was. */
export async function moveStress(guest: string, flags: readonly string[]): Promise<BothReports> {
  await using dest = startOurDest("stress");
  const to = ["--to", await peerOf(dest), "--switchover", "now", "--no-journal", "--json"];
  const send = postcopyCommand("source", "--guest", guest, ...to, ...flags);
  await using source = spawn(send, { lifeMs: LONG_TEST_MS });

  let meter: CpuMeter | undefined;
  let cpuSeconds = Number.NaN;
  const sending = collectRun(source, ({ event }) => {
    if (event === "switchover") meter = new CpuMeter(source.pid, dest.pid);
  });
  const arriving = collectRun(dest, ({ event }) => {
    if (event === "drained") cpuSeconds = meter?.seconds() ?? Number.NaN;
  });
  const sent = sourceReportOf(await sending);
  const arrived = destReportOf(await arriving);
  meter?.[Symbol.dispose]();
  if (arrived.audit?.pagesWrong !== 0) {
    throw new Error(`the move went wrong: ${JSON.stringify({ sent, arrived })}`);
  }
  return { source: sent, dest: arrived, cpuSeconds };
}

/**
 * No page is left zero, as none of QEMU's guest is. An idle guest of ours cannot stand still; this is
 * next to it. The move begins as soon as it has written once.
 */
function guestOf(memoryMib: number, activity: GuestActivity): string {
  const rate = activity === "idle" ? ",rate=64KiB/s" : "";
  return `stress:size=${memoryMib}MiB,zero=0,duration=10ms${rate}`;
}

/** Ours to ours. */
export async function moveByOurs(memoryMib: number, activity: GuestActivity): Promise<Move> {
  const { source, cpuSeconds } = await moveStress(guestOf(memoryMib, activity), []);
  const { rates, bytes } = source;
  const cpuSecondsPerGib = (cpuSeconds / (bytes.postcopy + bytes.requested)) * GIB;
  return { bytesPerSecond: rates.postcopy ?? Number.NaN, cpuSecondsPerGib };
}
