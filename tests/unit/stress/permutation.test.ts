import { expect, test } from "bun:test";
import fc from "fast-check";
import { createPermutation, permute } from "../../../src/guests/stress/permutation.ts";

function all(length: number, seed: number, stream: number): number[] {
  const permutation = createPermutation(length, seed, stream);
  return Array.from({ length }, (_, rank) => permute(permutation, rank));
}

test("permutes any count of numbers", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.nat(), fc.nat(63), (length, seed, stream) => {
      const sorted = all(length, seed, stream).sort((a, b) => a - b);
      expect(sorted).toEqual(Array.from({ length }, (_, index) => index));
    }),
  );
});

test("is another one for each seed and stream, and scatters the first ranks", () => {
  const hot = (seed: number, stream: number): number[] => all(4096, seed, stream).slice(0, 400);
  expect(hot(1, 0)).not.toEqual(hot(2, 0));
  expect(hot(1, 0)).not.toEqual(hot(1, 1));
  const eighths = new Array<number>(8).fill(0);
  for (const place of hot(1, 0)) eighths[place >> 9]! += 1;
  for (const count of eighths) expect(count).toBeWithin(25, 76);
});

test("refuses a length that is none", () => {
  for (const length of [0, -1, 1.5, 2 ** 31]) {
    expect(() => createPermutation(length, 1, 0)).toThrow(RangeError);
  }
});
