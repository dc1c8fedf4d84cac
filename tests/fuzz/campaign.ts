/** Runs many cases in processes of their own, and sums up what came of them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { PROJECT_ROOT } from "../helpers/spawn.ts";
import type { CaseResult } from "./worker.ts";

/** Cases that one process runs: what the program maps for its lifetime is given back then. */
const CASES_PER_WORKER = 250;
/** Longest that one case may take, on a machine that has other things to do as well. */
const HANG_LIMIT_MS = 60_000;
/** Most memory that a process may take, with all that it has mapped for cases before. */
export const MEMORY_MIB_MAX = 1024;

export interface CampaignOptions {
  seed: number;
  /** The first case, and how many. */
  first: number;
  cases: number;
  /** Where the recordings are. */
  directory: string;
  /** Processes at a time. */
  workers: number;
  onResult?: (result: CaseResult) => void;
  /** What runs the cases, and how long one may take: others than the usual for tests of this. */
  worker?: string;
  hangLimitMs?: number;
}

export interface CampaignSummary {
  cases: number;
  accepted: number;
  /** Refusals by code. */
  refused: Map<string, number>;
  /** Cases by target. */
  targets: Map<string, number>;
  slowest: { number: number; ms: number };
  peakMib: number;
  findings: CaseResult[];
}

/** Runs the campaign. */
export async function runCampaign(options: CampaignOptions): Promise<CampaignSummary> {
  const summary: CampaignSummary = {
    ...{ cases: 0, accepted: 0, refused: new Map(), targets: new Map() },
    ...{ slowest: { number: 0, ms: 0 }, peakMib: 0, findings: [] },
  };
  const end = options.first + options.cases;
  let next = options.first;
  const work = async (): Promise<void> => {
    while (next < end) {
      const from = next;
      next = Math.min(end, from + CASES_PER_WORKER);
      await runChunk(options, from, next, (result) => {
        count(summary, result);
        options.onResult?.(result);
      });
    }
  };
  await Promise.all(Array.from({ length: options.workers }, work));
  return summary;
}

function count(summary: CampaignSummary, result: CaseResult): void {
  summary.cases++;
  const { number, ms } = result;
  if (ms > summary.slowest.ms) summary.slowest = { number, ms };
  summary.peakMib = Math.max(summary.peakMib, result.peakMib);
  const add = (map: Map<string, number>, key: string): void => {
    map.set(key, (map.get(key) ?? 0) + 1);
  };
  add(summary.targets, result.target);
  if (result.verdict === "accepted") summary.accepted++;
  else if (result.verdict === "finding") summary.findings.push(result);
  else add(summary.refused, result.verdict);
}

type Take = (result: CaseResult) => void;

/** Cases [from, end); a case at which a process dies or hangs is a finding, and is left out then. */
async function runChunk(
  options: CampaignOptions,
  from: number,
  end: number,
  take: Take,
): Promise<void> {
  for (let at = from; at < end;) {
    const { next, failure } = await runWorker(options, at, end, take);
    at = next;
    if (failure !== undefined) {
      take(failure);
      at++;
    }
  }
}

async function runWorker(
  options: CampaignOptions,
  from: number,
  end: number,
  take: Take,
): Promise<{ next: number; failure: CaseResult | undefined }> {
  const { seed, directory, hangLimitMs = HANG_LIMIT_MS } = options;
  const script = options.worker ?? join(import.meta.dir, "worker.ts");
  const child = Bun.spawn([process.execPath, script, `${seed}`, `${from}`, `${end}`, directory], {
    cwd: PROJECT_ROOT,
    stdout: "pipe",
    stderr: "pipe",
  });
  const words = new Response(child.stderr).text();
  const running = { number: from, target: "start", hung: false, waiting: "" };
  const hang = (): void => {
    running.hung = true;
    running.waiting = describeThreads(child.pid);
    child.kill("SIGKILL");
  };
  // It first reads all recordings.
  let timer = setTimeout(hang, HANG_LIMIT_MS);
  let next = from;
  for await (const line of linesOf(child.stdout)) {
    const said = JSON.parse(line) as CaseResult | { begins: number; target: string };
    clearTimeout(timer);
    timer = setTimeout(hang, hangLimitMs);
    if ("begins" in said) {
      running.number = said.begins;
      running.target = said.target;
      continue;
    }
    next = said.number + 1;
    take(withinMemory(said));
  }
  clearTimeout(timer);
  await child.exited;
  if (next >= end) return { next, failure: undefined };
  const { hung, waiting, ...about } = running;
  const how = hung
    ? `took more than ${hangLimitMs} ms, with its threads in\n${waiting}`
    : `ended its process (${child.signalCode ?? child.exitCode})`;
  const problem = `${how}\n${await words}`;
  const failure = { recording: "", verdict: "finding", ms: 0, peakMib: 0, problem };
  return { next, failure: { ...failure, ...about } };
}

/** What each thread of a process is doing: its state and the kernel's function that it sleeps in. */
function describeThreads(pid: number): string {
  const lines: string[] = [];
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const read = (name: string): string =>
        readFileSync(`/proc/${pid}/task/${thread}/${name}`, "latin1").trim();
      const state = /^State:\s+(\S)/m.exec(read("status"))?.[1];
      lines.push(`  ${read("comm")}: ${state} ${read("wchan")}, system call ${read("syscall")}`);
    }
  } catch (error) {
    lines.push(`  ${String(error)}`);
  }
  return lines.join("\n");
}

function withinMemory(result: CaseResult): CaseResult {
  if (result.peakMib <= MEMORY_MIB_MAX || result.verdict === "finding") return result;
  return { ...result, verdict: "finding", problem: `${result.peakMib} MiB of memory were used` };
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of stream) {
    const lines = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** The summary as lines for people. */
export function describeSummary(summary: CampaignSummary): string {
  const list = (map: Map<string, number>): string =>
    [...map]
      .toSorted((a, b) => b[1] - a[1])
      .map(([name, times]) => `${name} ${times}`)
      .join(", ");
  const refused = [...summary.refused.values()].reduce((sum, times) => sum + times, 0);
  return [
    `targets: ${list(summary.targets)}`,
    `refused: ${list(summary.refused)}`,
    `${summary.cases} cases: ${summary.accepted} accepted and right, ${refused} refused, ` +
      `${summary.findings.length} findings; slowest ${summary.slowest.ms} ms (case ${summary.slowest.number}), ` +
      `peak ${summary.peakMib} MiB`,
  ].join("\n");
}
