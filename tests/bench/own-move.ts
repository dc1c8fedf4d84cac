/** Our own ends, which move their own guest by post-copy alone, over loopback TCP. */
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { collectRun, destReportOf, sourceReportOf } from "../helpers/postcopy-run.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { CpuMeter } from "./cpu-meter.ts";
import { GIB } from "./qemu-move.ts";
import type { GuestActivity, Move } from "./qemu-move.ts";

/**
 * No page is left zero, as none of QEMU's guest is. An idle guest of ours cannot stand still; this is
 * next to it. The move begins as soon as it has written once.
 */
function guestOf(memoryMib: number, activity: GuestActivity): string {
  const rate = activity === "idle" ? ",rate=1MiB/s" : "";
  return `stress:size=${memoryMib}MiB,zero=0,duration=10ms${rate}`;
}

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

/** Ours to ours; fails if a page did not arrive as it was. */
export async function moveByOurs(memoryMib: number, activity: GuestActivity): Promise<Move> {
  await using dest = startOurDest("stress");
  const to = ["--to", await peerOf(dest), "--switchover", "now", "--no-journal", "--json"];
  const send = postcopyCommand("source", "--guest", guestOf(memoryMib, activity), ...to);
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
  const { audit } = destReportOf(await arriving);
  meter?.[Symbol.dispose]();
  const { rates, bytes } = sent;
  if (audit?.pagesWrong !== 0 || rates.postcopy === null) {
    throw new Error(`the move went wrong: ${JSON.stringify({ sent, audit })}`);
  }
  const moved = bytes.postcopy + bytes.requested;
  return { bytesPerSecond: rates.postcopy, cpuSecondsPerGib: (cpuSeconds / moved) * GIB };
}
