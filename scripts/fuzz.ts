/**
 * Gives mutated recordings of real streams to everything that reads bytes from outside:
 *
 *     npm run fuzz -- [--cases N] [--seed S] [--from N] [--workers N] [--record]
 *
 * Every case is an error with a code, or right. What is not is printed with its number, by which it
 * can be run again, and its input is kept, cut down to what matters, in .cache/fuzz-findings.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { describeSummary, runCampaign } from "../tests/fuzz/campaign.ts";
import { RECORDINGS, recordAll } from "../tests/fuzz/recordings.ts";
import { shrinkCase } from "../tests/fuzz/shrink.ts";
import type { CaseResult } from "../tests/fuzz/worker.ts";
import { PROJECT_ROOT } from "../tests/helpers/spawn.ts";

const CASES = 20_000;
const TOLD_EVERY = 1000;
/** Findings that are cut down; most have the same cause. */
const SHRUNK_MAX = 5;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      cases: { type: "string", default: `${CASES}` },
      seed: { type: "string", default: `${Date.now() % 1_000_000}` },
      from: { type: "string", default: "0" },
      workers: { type: "string", default: "2" },
      record: { type: "boolean", default: false },
    },
  });
  if (values.record) rmSync(RECORDINGS, { recursive: true, force: true });
  const directory = await recordAll();
  const seed = Number(values.seed);
  console.log(`seed ${seed}`);
  let done = 0;
  const summary = await runCampaign({
    ...{ seed, directory, first: Number(values.from), cases: Number(values.cases) },
    workers: Number(values.workers),
    onResult: (result) => {
      if (result.verdict === "finding") tell(seed, result);
      if (++done % TOLD_EVERY === 0) console.log(`${done} cases`);
    },
  });
  console.log(describeSummary(summary));
  await keepInputs(seed, directory, summary.findings.slice(0, SHRUNK_MAX));
  process.exit(summary.findings.length === 0 ? 0 : 1);
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
  for (const { number } of findings) {
    const { name, bytes } = await shrinkCase(seed, number, directory);
    const path = join(place, `${seed}-${number}.bin`);
    writeFileSync(path, bytes);
    console.log(`case ${number} (${name}): ${bytes.length} bytes in ${path}`);
  }
}

await main();
