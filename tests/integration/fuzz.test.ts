/**
 * Mutated recordings of real streams, given to everything that reads bytes from outside. The seed is
 * fixed, so that a commit is judged by what it changes; `npm run fuzz` has a new one each time, and
 * runs twenty thousand. What was found stays in tests/fuzz/corpus.ts.
 */
import { beforeAll, expect } from "bun:test";

import { describeSummary, MEMORY_MIB_MAX, runCampaign } from "../fuzz/campaign.ts";
import { readMaterials } from "../fuzz/cases.ts";
import { PROCESS_KINDS, runProcessCase } from "../fuzz/processes.ts";
import { recordAll } from "../fuzz/recordings.ts";
import { TARGETS } from "../fuzz/targets.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { needQemuVersion, QEMU_VERSIONS } from "../helpers/qemu-versions.ts";

const SEED = 2026;
const CASES = 1500;
const PROCESSES = 6;
/** Cases are quick, and there are many. */
const CAMPAIGN_LIMIT_MS = 5 * LONG_TEST_MS;

const test = requireOrSkip(...QEMU_VERSIONS.map(needQemuVersion), needUserfaultfd());
let directory = "";

beforeAll(async () => {
  const needed = [...QEMU_VERSIONS.map(needQemuVersion), needUserfaultfd()];
  if (needed.every(({ missing }) => missing === undefined)) directory = await recordAll();
}, CAMPAIGN_LIMIT_MS);

test("everything that reads bytes has been recorded, of every QEMU and of our own ends", () => {
  const names = readMaterials(directory).map(({ name }) => name);
  for (const owner of [...QEMU_VERSIONS, "own"]) {
    expect(names.filter((name) => name.includes(owner))).not.toBeEmpty();
  }
  for (const { name, takes } of TARGETS) expect([name, names.some(takes)]).toEqual([name, true]);
});

test(
  "mutated streams end with an error or a right result, in bounded time and memory",
  async () => {
    const summary = await runCampaign({
      ...{ seed: SEED, first: 0, cases: CASES, directory, workers: 2 },
    });
    const { findings, cases, accepted, refused, peakMib } = summary;
    const found = findings.map(({ number, target, problem, edits }) => {
      const again = `npm run fuzz -- --seed ${SEED} --from ${number} --cases 1`;
      return { again, target, problem, edits };
    });
    expect(found, describeSummary(summary)).toEqual([]);
    expect(cases).toBe(CASES);
    // Neither refuses all nor takes all: then it would show nothing.
    expect(accepted).toBeGreaterThan(CASES / 10);
    expect(refused.size).toBeGreaterThan(10);
    expect(peakMib).toBeLessThanOrEqual(MEMORY_MIB_MAX);
  },
  CAMPAIGN_LIMIT_MS,
);

test("mutated streams at whole processes end with a sentence and an exit code", async () => {
  const recordings = readMaterials(directory);
  const numbers = Array.from({ length: PROCESSES }, (_, number) => number);
  const results = await Promise.all(
    numbers.map(async (number) => await runProcessCase(SEED, number, recordings)),
  );
  expect(new Set(results.map(({ kind }) => kind))).toEqual(new Set(PROCESS_KINDS));
  const failed = results.filter(({ problem }) => problem !== undefined);
  expect(failed.map(({ kind, problem, stderr }) => ({ kind, problem, stderr }))).toEqual([]);
});
