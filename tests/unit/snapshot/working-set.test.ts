/** The record of what a guest asked for first: whole, or known to be damaged, whoever writes it. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import {
  readWorkingSet,
  WORKING_SET_FILE,
  writeWorkingSet,
} from "../../../src/guests/snapshot/working-set.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const BLOCKS = [{ index: 0, name: "pc.ram", length: 64 * 4096, pageSize: 4096, address: 0 }];
const PAGES = Uint32Array.of(7, 3, 60, 3);

test("any byte that is wrong, and any end that is missing, is noticed", async () => {
  await using directory = new TemporaryDirectory("working-set");
  const file = directory.file(WORKING_SET_FILE);
  writeWorkingSet(directory.path, BLOCKS, PAGES);
  expect(readWorkingSet(directory.path, BLOCKS)).toEqual(Uint32Array.of(7, 3, 60));
  const whole = readFileSync(file);
  const place = fc.nat({ max: whole.length - 1 });
  fc.assert(
    fc.property(place, fc.integer({ min: 1, max: 255 }), (at, change) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ change;
      writeFileSync(file, bytes);
      expect(readWorkingSet(directory.path, BLOCKS)).toBe("damaged");
      writeFileSync(file, whole.subarray(0, at));
      expect(readWorkingSet(directory.path, BLOCKS)).toBe("damaged");
    }),
  );
});

test("where it cannot be replaced nothing is left behind, and the old one stays", async () => {
  await using directory = new TemporaryDirectory("working-set");
  mkdirSync(directory.file(WORKING_SET_FILE));
  expect(() => writeWorkingSet(directory.path, BLOCKS, PAGES)).toThrow("rename");
  expect(readdirSync(directory.path)).toEqual([WORKING_SET_FILE]);
});
