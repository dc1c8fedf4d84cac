/** The record of what a guest asked for first: whole, or known to be damaged, whoever writes it. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import type { RamBlock } from "../../../src/ram/block.ts";
import { readWorkingSet, recordRequests } from "../../../src/guests/stored/working-set.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const blocks: RamBlock[] = [100, 28].map((pages, index) => {
  return { index, name: `block${index}`, length: pages * 4096, pageSize: 4096, address: 0 };
});

const NAME = "working-set";
const PAGES = Uint32Array.of(7, 3, 60, 3);

/** What is recorded after restores that asked for these pages. */
async function recorded(...restores: number[][]): Promise<number[]> {
  await using directory = new TemporaryDirectory("set");
  for (const pages of restores)
    recordRequests(directory.file(NAME), blocks, Uint32Array.from(pages));
  const set = readWorkingSet(directory.file(NAME), blocks);
  if (typeof set !== "object") throw new Error(`the record is ${set ?? "not there"}`);
  return [...set];
}

test("one restore: the pages in the order of their first request, each once", async () => {
  expect(await recorded([9, 3, 9, 127, 3, 0])).toEqual([9, 3, 127, 0]);
});

test("several restores: what was asked for more often first, then what was earlier", async () => {
  expect(await recorded([1, 2, 3], [3, 4, 2])).toEqual([2, 3, 1, 4]);
  expect(await recorded([1, 2], [3], [3], [2, 3])).toEqual([3, 2, 1]);
});

test("a restore that asked for nothing new leaves the rest as it was", async () => {
  expect(await recorded([5, 6], [])).toEqual([5, 6]);
});

test("any byte that is wrong, and any end that is missing, is noticed", async () => {
  await using directory = new TemporaryDirectory("working-set");
  const file = directory.file(NAME);
  recordRequests(directory.file(NAME), blocks, PAGES);
  expect(readWorkingSet(directory.file(NAME), blocks)).toEqual(Uint32Array.of(7, 3, 60));
  const whole = readFileSync(file);
  const place = fc.nat({ max: whole.length - 1 });
  fc.assert(
    fc.property(place, fc.integer({ min: 1, max: 255 }), (at, change) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ change;
      writeFileSync(file, bytes);
      expect(readWorkingSet(directory.file(NAME), blocks)).toBe("damaged");
      writeFileSync(file, whole.subarray(0, at));
      expect(readWorkingSet(directory.file(NAME), blocks)).toBe("damaged");
    }),
  );
});

test("where it cannot be replaced nothing is left behind, and the old one stays", async () => {
  await using directory = new TemporaryDirectory("working-set");
  mkdirSync(directory.file(NAME));
  expect(() => recordRequests(directory.file(NAME), blocks, PAGES)).toThrow("rename");
  expect(readdirSync(directory.path)).toEqual([NAME]);
});

test("a record of another guest is no record, and is made anew", async () => {
  await using directory = new TemporaryDirectory("set");
  expect(readWorkingSet(directory.file(NAME), blocks)).toBeUndefined();
  recordRequests(directory.file(NAME), blocks, Uint32Array.of(7, 8));
  expect(readWorkingSet(directory.file(NAME), blocks.slice(1))).toBe("damaged");
  recordRequests(directory.file(NAME), blocks.slice(1), Uint32Array.of(1));
  expect(readWorkingSet(directory.file(NAME), blocks.slice(1))).toEqual(Uint32Array.of(1));
});
