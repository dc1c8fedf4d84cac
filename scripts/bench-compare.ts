/**
 * The bulk rate of our own postcopy beside QEMU's, on this machine and in one run: the two take
 * turns, so that a machine whose speed drifts is the same for both.
 *
 *     bun scripts/bench-compare.ts [--runs N] [--json]
 *
 * Both move 1 GiB, pure postcopy, over loopback TCP. "idle" guests stand (nearly) still; "running"
 * ones write all the time: QEMU's a counter in every page, ours the demo's 200 MiB/s.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { DestReport, SourceReport } from "../src/report/report.ts";
import { spawn } from "../tests/helpers/spawn.ts";
import type { RunningProgram } from "../tests/helpers/spawn.ts";
import { measureBaseline } from "./bench-baseline.ts";

const CLI = join(import.meta.dir, "..", "src", "cli.ts");
const MIB = 1024 * 1024;
const MEMORY_MIB = 1024;
const RUN_LIMIT_MS = 180_000;

/** Our guests: like the demo's, but with no page left zero, as QEMU's has none. */
const GUESTS = {
  idle: "stress:size=1GiB,zero=0,rate=1MiB/s,duration=10ms",
  running: "stress:size=1GiB,zero=0,duration=10ms",
} as const;

type Guest = keyof typeof GUESTS;

function postcopy(...words: string[]): RunningProgram {
  return spawn([process.execPath, CLI, ...words], { lifeMs: RUN_LIMIT_MS });
}

async function reportOf<Report>(program: RunningProgram): Promise<Report> {
  for await (const event of program.events()) {
    if (event["event"] === "report") return event["report"] as Report;
  }
  throw new Error(`no report: ${program.stderr.tail}`);
}

/** Bytes a second that our own postcopy phase moved. */
async function moveOurs(guest: Guest): Promise<number> {
  await using dest = postcopy("dest", "--json", "--guest", "stress", "--listen", "tcp:127.0.0.1:0");
  const { 1: peer = "" } = await dest.stdout.waitForLine(/"event":"listening".*"peer":"([^"]+)"/);
  const words = ["--guest", GUESTS[guest], "--to", peer, "--switchover", "now", "--no-journal"];
  await using source = postcopy("source", "--json", ...words);
  const sent = await reportOf<SourceReport>(source);
  const arrived = await reportOf<DestReport>(dest);
  if (arrived.audit?.pagesWrong !== 0 || sent.rates.postcopy === null) {
    throw new Error(`the move went wrong: ${JSON.stringify({ sent, arrived })}`);
  }
  return sent.rates.postcopy;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

interface Comparison {
  guest: Guest;
  qemu: number[];
  ours: number[];
  ratio: number;
}

async function compare(guest: Guest, runs: number): Promise<Comparison> {
  const qemu: number[] = [];
  const ours: number[] = [];
  for (let run = 0; run < runs; run++) {
    const qemuGuest = guest === "idle" ? "idle" : "counting";
    const { medianBytesPerSecond } = await measureBaseline({
      runs: 1,
      memoryMib: MEMORY_MIB,
      guest: qemuGuest,
    });
    qemu.push(medianBytesPerSecond);
    ours.push(await moveOurs(guest));
  }
  return { guest, qemu, ours, ratio: median(ours) / median(qemu) };
}

function describe({ guest, qemu, ours, ratio }: Comparison): string {
  const list = (rates: readonly number[]): string =>
    `${(median(rates) / MIB).toFixed(0)} MiB/s (${rates.map((rate) => (rate / MIB).toFixed(0)).join(", ")})`;
  return [
    `postcopy of ${MEMORY_MIB} MiB, guest ${guest}`,
    `  QEMU to QEMU  ${list(qemu)}`,
    `  ours to ours  ${list(ours)}`,
    `  ratio         ${ratio.toFixed(2)}`,
  ].join("\n");
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runs: { type: "string", default: "3" },
      json: { type: "boolean", default: false },
    },
  });
  const results: Comparison[] = [];
  for (const guest of ["idle", "running"] as const) {
    const result = await compare(guest, Number(values.runs));
    results.push(result);
    if (!values.json) console.log(describe(result));
  }
  if (values.json) console.log(JSON.stringify(results, null, 2));
}

await main();
