import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import type { RamBlock } from "../../../src/ram/block.ts";
import {
  readWorkingSet,
  recordRequests,
  WORKING_SET_FILE,
} from "../../../src/guests/snapshot/working-set.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const blocks: RamBlock[] = [100, 28].map((pages, index) => {
  return { index, name: `block${index}`, length: pages * 4096, pageSize: 4096, address: 0 };
});

/** What is recorded after restores that asked for these pages. */
async function recorded(...restores: number[][]): Promise<number[]> {
  await using directory = new TemporaryDirectory("set");
  for (const pages of restores) recordRequests(directory.path, blocks, Uint32Array.from(pages));
  const set = readWorkingSet(directory.path, blocks);
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

test("a record that is damaged, or of another guest, is no record, and is made anew", async () => {
  await using directory = new TemporaryDirectory("set");
  expect(readWorkingSet(directory.path, blocks)).toBeUndefined();
  recordRequests(directory.path, blocks, Uint32Array.of(7, 8));
  expect(readWorkingSet(directory.path, blocks.slice(1))).toBe("damaged");
  const path = directory.file(WORKING_SET_FILE);
  const bytes = readFileSync(path);
  for (let at = 0; at < bytes.length; at++) {
    writeFileSync(
      path,
      bytes.map((byte, i) => (i === at ? byte ^ 1 : byte)),
    );
    expect(readWorkingSet(directory.path, blocks)).toBe("damaged");
  }
  recordRequests(directory.path, blocks, Uint32Array.of(1));
  expect(readWorkingSet(directory.path, blocks)).toEqual(Uint32Array.of(1));
});
