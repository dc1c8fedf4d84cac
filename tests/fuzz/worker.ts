/**
 * Runs cases of a campaign, one after the other, and says on standard output what came of each: a
 * process of its own, so that a crash, a hang or memory that grows is seen from outside.
 *
 *     bun tests/fuzz/worker.ts SEED FROM END RECORDINGS
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { caseOf, readMaterials } from "./cases.ts";
import { applyEdits } from "./mutate.ts";
import { Finding } from "./target.ts";
import type { Place, Target, Verdict } from "./target.ts";

/** What is said of a case, a line each. */
export interface CaseResult {
  number: number;
  target: string;
  recording: string;
  /** "accepted", a code of a refusal, or "finding". */
  verdict: string;
  ms: number;
  /** Most memory that the process had at any time, in MiB. */
  peakMib: number;
  /** Of a finding: what it is, and what was done to the recording. */
  problem?: string;
  edits?: string[];
}

const MEMORY_FILES = "/dev/shm";

/** Runs one input in an empty directory of its own. */
export async function runInput(
  target: Target,
  bytes: Uint8Array,
  about: Omit<Place, "directory">,
): Promise<Verdict | Finding> {
  const base = existsSync(MEMORY_FILES) ? MEMORY_FILES : tmpdir();
  const directory = mkdtempSync(join(base, "postcopy-fuzz-"));
  mkdirSync(join(directory, "kept"));
  try {
    return await target.run(bytes, { ...about, directory });
  } catch (error) {
    if (error instanceof Finding) return error;
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return new Finding(`the harness or the program threw: ${stack}`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function peakMib(): number {
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "latin1"));
  return Math.ceil(Number(match?.[1] ?? 0) / 1024);
}

async function main(): Promise<void> {
  const [seed = "1", from = "0", end = "0", directory = ""] = process.argv.slice(2);
  const materials = readMaterials(directory);
  for (let number = Number(from); number < Number(end); number++) {
    const one = caseOf(Number(seed), number, materials);
    const bytes = applyEdits(one.material.bytes, one.edits);
    const began = performance.now();
    writeFileSync(1, `${JSON.stringify({ begins: number, target: one.target.name })}\n`);
    const about = { material: one.material, recordings: materials };
    const verdict = await runInput(one.target, bytes, about);
    const result: CaseResult = {
      number,
      target: one.target.name,
      recording: one.material.name,
      verdict:
        verdict instanceof Finding ? "finding" : verdict === "accepted" ? verdict : verdict.refused,
      ms: Math.round(performance.now() - began),
      peakMib: peakMib(),
    };
    if (verdict instanceof Finding) {
      result.problem = `${verdict.message}\n${String((verdict.cause as Error | undefined)?.stack ?? "")}`;
      result.edits = one.edits.map(({ at, end: to, bytes: by, what }) => {
        return `${what}: [${at}, ${to}) becomes ${by.length} bytes`;
      });
    }
    writeFileSync(1, `${JSON.stringify(result)}\n`);
  }
  process.exit(0);
}

if (import.meta.main) await main();
