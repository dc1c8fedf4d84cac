/**
 * Gives mutated recordings of real streams to everything that reads bytes from outside:
 *
 *     npm run fuzz -- [--cases N] [--seed S] [--from N] [--processes N] [--workers N] [--record]
 *
 * Every case is an error with a code, or right. What is not is printed with its number, by which it
 * can be run again, and its input is kept in .cache/fuzz-findings; cut down to what matters, unless
 * its process died or hung. At the end mutated bytes are given to whole processes.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { describeSummary, runCampaign } from "../tests/fuzz/campaign.ts";
import { readMaterials } from "../tests/fuzz/cases.ts";
import { runProcessCase } from "../tests/fuzz/processes.ts";
import { RECORDINGS, recordAll } from "../tests/fuzz/recordings.ts";
import { inputOf, shrinkCase } from "../tests/fuzz/shrink.ts";
import type { CaseResult } from "../tests/fuzz/worker.ts";
import { PROJECT_ROOT } from "../tests/helpers/spawn.ts";

const CASES = 20_000;
const TOLD_EVERY = 1000;
/** Whole processes that are given mutated bytes as well. */
const PROCESSES = 300;
/** Findings that are cut down; most have the same cause. */
const SHRUNK_MAX = 5;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      cases: { type: "string", default: `${CASES}` },
      seed: { type: "string", default: `${Date.now() % 1_000_000}` },
      from: { type: "string", default: "0" },
      processes: { type: "string", default: "" },
      workers: { type: "string", default: "2" },
      record: { type: "boolean", default: false },
    },
  });
  if (values.record) rmSync(RECORDINGS, { recursive: true, force: true });
  const directory = await recordAll();
  const seed = Number(values.seed);
  const cases = Number(values.cases);
  console.log(`seed ${seed}`);
  let done = 0;
  const summary = await runCampaign({
    ...{ seed, directory, first: Number(values.from), cases },
    workers: Number(values.workers),
    onResult: (result) => {
      if (result.verdict === "finding") tell(seed, result);
      if (++done % TOLD_EVERY === 0) console.log(`${done} cases`);
    },
  });
  console.log(describeSummary(summary));
  await keepInputs(seed, directory, summary.findings.slice(0, SHRUNK_MAX));
  // Who runs one case again wants that one.
  const processes = Number(values.processes || (cases === 1 ? 0 : PROCESSES));
  const failed = await runProcesses(seed, directory, processes, Number(values.workers));
  process.exit(summary.findings.length + failed === 0 ? 0 : 1);
}

/** Runs whole processes, and says how they ended; how many did so as they must not. */
async function runProcesses(
  seed: number,
  directory: string,
  count: number,
  workers: number,
): Promise<number> {
  const recordings = readMaterials(directory);
  const ends = new Map<string, number>();
  let next = 0;
  let failed = 0;
  const work = async (): Promise<void> => {
    while (next < count) {
      const number = next++;
      const result = await runProcessCase(seed, number, recordings);
      const end = `${result.kind} ${result.exitCode}`;
      ends.set(end, (ends.get(end) ?? 0) + 1);
      if (result.problem === undefined) continue;
      failed++;
      const edits = result.edits.map(({ what }) => what).join("; ");
      console.log(`process ${number}, ${result.kind}, ${result.recording} (${edits})`);
      console.log(`  ${result.problem}\n${result.stderr}`);
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  const list = [...ends.keys()]
    .toSorted((a, b) => a.localeCompare(b))
    .map((end) => `${end}: ${ends.get(end)}`);
  console.log(`${count} processes, by exit code: ${list.join(", ")}; ${failed} findings`);
  return failed;
}

function tell(seed: number, { number, target, recording, problem, edits }: CaseResult): void {
  console.log(`finding: case ${number}, ${target}, ${recording}\n  ${problem?.trim() ?? ""}`);
  for (const each of edits ?? []) console.log(`  ${each}`);
  console.log(`  again: npm run fuzz -- --seed ${seed} --from ${number} --cases 1`);
}

async function keepInputs(
  seed: number,
  directory: string,
  findings: readonly CaseResult[],
): Promise<void> {
  const place = join(PROJECT_ROOT, ".cache", "fuzz-findings");
  mkdirSync(place, { recursive: true });
  for (const { number, edits } of findings) {
    const { name, bytes } = inputOf(seed, number, directory);
    const path = join(place, `${seed}-${number}.bin`);
    writeFileSync(path, bytes);
    console.log(`case ${number} (${name}): ${bytes.length} bytes in ${path}`);
    // A process that died or hung said nothing of what was done: it would be ours that does so.
    if (edits === undefined) continue;
    const small = await shrinkCase(seed, number, directory);
    writeFileSync(path, small);
    console.log(`case ${number}: cut down to ${small.length} bytes`);
  }
}

await main();
