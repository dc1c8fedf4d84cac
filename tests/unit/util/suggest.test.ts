import { expect, test } from "bun:test";
import fc from "fast-check";
import { editDistance, nearest } from "../../../src/util/suggest.ts";

test.each([
  ["", "", 0],
  ["guest", "guest", 0],
  ["gest", "guest", 1],
  ["qiuet", "quiet", 1],
  ["kitten", "sitting", 3],
  ["", "abc", 3],
])("%s and %s are %d slips apart", (from, to, distance) => {
  expect(editDistance(from, to)).toBe(distance);
  expect(editDistance(to, from)).toBe(distance);
});

test("a distance is at most the length of the longer word, and 0 only for equal ones", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (from, to) => {
      const distance = editDistance(from, to);
      expect(distance).toBeLessThanOrEqual(Math.max(from.length, to.length));
      expect(distance === 0).toBe(from === to);
    }),
  );
});

const FLAGS = ["guest", "to", "max-bandwidth", "max-postcopy-bandwidth", "switchover", "json"];

test.each([
  ["gest", "guest"],
  ["maxBandwidth", "max-bandwidth"],
  ["bandwith", "max-bandwidth"],
  ["switch", "switchover"],
  ["JSON", "json"],
  ["xyzzy", undefined],
  ["m", undefined],
  ["x", undefined],
  ["", undefined],
  ["g".repeat(1000), undefined],
])("%s suggests %s", (word, suggestion) => {
  expect(nearest(word, FLAGS)).toBe(suggestion);
});

test("a word of which every letter is wrong is not near", () => {
  expect(nearest("a", ["b"])).toBeUndefined();
});
