/**
 * A pseudo-random permutation of 0 to length - 1 without a table: a bijection of k bits, where 2^k
 * is the next power of two, applied again until the result is below the length (cycle walking). It
 * spreads the hot and the zero pages of a worker over its memory at no cost in memory.
 */
import { mix32 } from "./mix.ts";

export interface Permutation {
  /** Numbers that are permuted: 0 to length - 1. */
  readonly length: number;
  readonly mask: number;
  readonly shift: number;
  readonly key: number;
}

/** Odd, so that multiplying by it permutes the numbers of any count of bits. */
const MULTIPLIERS = [0x9e37_79b1, 0x85eb_ca6b, 0xc2b2_ae35] as const;

/** The permutation of 0 to length - 1 (1 <= length <= 2^30) that a seed and a stream choose. */
export function createPermutation(length: number, seed: number, stream: number): Permutation {
  if (!Number.isInteger(length) || length < 1 || length > 2 ** 30) {
    throw new RangeError(`a permutation of ${length} numbers`);
  }
  const bits = 32 - Math.clz32(length - 1);
  const key = mix32(mix32(seed) ^ mix32(stream + 1));
  return { length, mask: 2 ** bits - 1, shift: Math.max(1, bits >> 1), key };
}

/** Where `rank` (0 <= rank < length) comes to lie. */
export function permute(permutation: Permutation, rank: number): number {
  const { length, mask, shift, key } = permutation;
  let value = rank;
  do {
    // Each step is a bijection of k bits: add, multiply by an odd number, xor with a right shift.
    value = Math.imul(value + key, MULTIPLIERS[0]) & mask;
    value ^= value >>> shift;
    value = Math.imul(value, MULTIPLIERS[1]) & mask;
    value ^= value >>> shift;
    value = Math.imul(value, MULTIPLIERS[2]) & mask;
    value ^= value >>> shift;
  } while (value >= length);
  return value;
}
