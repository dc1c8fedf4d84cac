/** The harness itself: what it calls a finding, and that a case comes out the same again. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { SyscallError } from "../../../syscalls/error.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { runCampaign } from "../../fuzz/campaign.ts";
import { streamLayout } from "../../fuzz/layouts.ts";
import { readModel } from "../../fuzz/model.ts";
import { applyEdits, mutate } from "../../fuzz/mutate.ts";
import { Random } from "../../helpers/random.ts";
import { Finding, judge } from "../../fuzz/target.ts";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";
import {
  bytesOf,
  description,
  eof,
  HAND_MADE_BLOCK,
  opening,
  page,
  ramEnd,
  ramPart,
  ramStart,
  unknownDevice,
  WHOLE,
} from "../../helpers/hand-made-stream.ts";

const PRECOPY = bytesOf(
  ...[opening(), ramStart(), ramPart(page(0, 7), page(4096, 9)), ramEnd(page(0, 8))],
  ...[unknownDevice(3, "cpu", 1, 2, 3), eof, description("cpu")],
);

test("errors of operation are verdicts, everything else is a finding", () => {
  expect(judge(new StreamError("BAD_MAGIC", "no"))).toEqual({ refused: "BAD_MAGIC" });
  for (const error of [new RangeError("x"), new SyscallError("mmap", 12, "4096 bytes"), "text"]) {
    expect(() => judge(error)).toThrow(Finding);
  }
});

describe("a mutated case", () => {
  const bytes = bytesOf(...WHOLE);
  const material = { name: "whole", bytes, layout: streamLayout(bytes) };
  const made = (seed: number, number: number): Uint8Array => {
    return applyEdits(bytes, mutate(new Random(seed, number), material, [material]));
  };

  test("is the same for the same number, and another for another", () => {
    const cases = Array.from({ length: 200 }, (_, number) => made(1, number));
    expect(Array.from({ length: 200 }, (_, number) => made(1, number))).toEqual(cases);
    const different = new Set(cases.map((each) => Bun.hash(each)));
    expect(different.size).toBeGreaterThan(150);
    expect(cases.filter((each) => Buffer.compare(each, bytes) !== 0).length).toBeGreaterThan(180);
  });

  test("has edits that do not touch each other", () => {
    const edits = [
      { at: 0, end: 2, bytes: Uint8Array.of(9), what: "" },
      { at: 1, end: 3, bytes: Uint8Array.of(8), what: "" },
      { at: 4, end: 4, bytes: Uint8Array.of(7), what: "" },
    ];
    expect([...applyEdits(Uint8Array.of(0, 1, 2, 3, 4), edits)]).toEqual([9, 2, 3, 7, 4]);
  });
});

test("the model reads what a stream leaves", () => {
  const guest = readModel(PRECOPY);
  expect(guest).toMatchObject({ ending: "precopy", blocks: [{ name: HAND_MADE_BLOCK }] });
  expect([...(guest.blocks[0]?.pages ?? [])].map(([at, bytes]) => [at, bytes[0]])).toEqual([
    [0, 8],
    [1, 9],
  ]);
  expect(guest.devices).toHaveLength(4 + 5 + 10 + 3 + 3);
  expect(readModel(bytesOf(...WHOLE))).toMatchObject({ ending: "postcopy" });
});

test(
  "a process that dies, hangs or takes too much memory is a finding, and the rest is run",
  async () => {
    const summary = await runCampaign({
      ...{ seed: 1, first: 0, cases: 8, directory: "none", workers: 1, hangLimitMs: 3000 },
      worker: join(import.meta.dir, "fixtures", "failing-worker.ts"),
    });
    expect(summary).toMatchObject({ cases: 8, accepted: 5 });
    const found = summary.findings.map(({ number, problem = "" }) => [
      number,
      problem.split("\n")[0],
    ]);
    expect(found).toEqual([
      [2, "ended its process (SIGSEGV)"],
      [4, "took more than 3000 ms, with its threads in"],
      [5, "5000 MiB of memory were used"],
    ]);
    expect(summary.findings[1]?.problem).toMatch(/^ {2}\S.*: [A-Z] \S+, system call \S+/m);
  },
  LONG_TEST_MS,
);
