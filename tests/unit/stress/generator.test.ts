import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  GENERATOR_WORDS,
  nextRandom,
  seedGenerator,
} from "../../../src/guests/stress/generator.ts";

function draw(state: Int32Array, count: number): number[] {
  return Array.from({ length: count }, () => nextRandom(state, 0));
}

function seeded(seed: number, stream: number): Int32Array {
  const state = new Int32Array(GENERATOR_WORDS);
  seedGenerator(state, 0, seed, stream);
  return state;
}

/** sfc32 as its author writes it, in unsigned arithmetic of arbitrary width. */
function* reference(words: bigint[]): Generator<number> {
  const mask = 0xffff_ffffn;
  let [a, b, c, counter] = words as [bigint, bigint, bigint, bigint];
  for (;;) {
    const result = (a + b + counter) & mask;
    counter = (counter + 1n) & mask;
    a = b ^ (b >> 9n);
    b = (c + (c << 3n)) & mask;
    c = ((((c << 21n) | (c >> 11n)) & mask) + result) & mask;
    yield Number(result);
  }
}

test("draws what sfc32 draws from the same state", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 4, maxLength: 4 }), (words) => {
      const expected = reference(words.map(BigInt));
      const state = Int32Array.from(words);
      for (const value of draw(state, 50)) expect(value).toBe(expected.next().value as number);
    }),
  );
});

test("goes on from a saved state, at any place of an array", () => {
  const state = seeded(7, 3);
  draw(state, 1000);
  const saved = new Int32Array(16);
  saved.set(state, 8);
  expect(Array.from({ length: 20 }, () => nextRandom(saved, 8))).toEqual(draw(state, 20));
});

test("gives each seed and stream its own sequence, and the same one every time", () => {
  const firsts = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    for (let stream = -2; stream < 8; stream++) {
      firsts.add(draw(seeded(seed, stream), 2).join());
    }
  }
  expect(firsts.size).toBe(200);
  // Two hosts may run two versions of the program: the sequence must never change.
  expect(draw(seeded(1, 0), 3)).toEqual([1_831_514_488, 2_503_755_071, 1_549_252_507]);
});

test("spreads its draws evenly", () => {
  const state = seeded(1, 0);
  const counts = new Array<number>(16).fill(0);
  for (const value of draw(state, 160_000)) counts[value >>> 28]! += 1;
  for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
});
