import { expect, test } from "bun:test";
import {
  isZeroVersion,
  versionAfterDiscard,
  versionAfterWrite,
} from "../../../src/guests/stress/version.ts";

test("counts writes and discards together and remembers which came last", () => {
  const written = versionAfterWrite(0);
  const discarded = versionAfterDiscard(written);
  const again = versionAfterWrite(discarded);
  expect([written, discarded, again]).toEqual([1, 0x8000_0002, 3]);
  expect([0, written, discarded, again].map(isZeroVersion)).toEqual([true, false, true, false]);
});

test("wraps without ever looking untouched", () => {
  expect(versionAfterWrite(0x7fff_ffff)).toBe(1);
  expect(versionAfterDiscard(0x7fff_ffff)).toBe(0x8000_0001);
  expect(versionAfterWrite(0xffff_ffff)).toBe(1);
});
