/**
 * The pseudo-random generator of the stress guest: sfc32 (Chris Doty-Humphrey's Small Fast
 * Counting generator, from PractRand), because its whole state is four 32-bit words. A state lies
 * in a caller's Int32Array, so that the state of a worker sits in the shared control block, is
 * right after every operation, and can be saved while the worker is parked.
 */

/** Words of one generator's state. */
export const GENERATOR_WORDS = 4;

/** Draws thrown away after seeding; sfc32 has mixed its seed well after 12. */
const WARM_UP_DRAWS = 15;

/** Starts the generator at state[at, at + 4) for a seed; each stream gives its own sequence. */
export function seedGenerator(state: Int32Array, at: number, seed: number, stream: number): void {
  state[at] = seed;
  state[at + 1] = stream;
  state[at + 2] = 0x706f_7374;
  state[at + 3] = 1;
  for (let draw = 0; draw < WARM_UP_DRAWS; draw++) nextRandom(state, at);
}

/** The next 32 random bits, as a number from 0 to 2^32 - 1; moves the state on. */
export function nextRandom(state: Int32Array, at: number): number {
  const a = state[at]!;
  const b = state[at + 1]!;
  const c = state[at + 2]!;
  const counter = state[at + 3]!;
  const result = (((a + b) | 0) + counter) | 0;
  state[at] = b ^ (b >>> 9);
  state[at + 1] = (c + (c << 3)) | 0;
  state[at + 2] = (((c << 21) | (c >>> 11)) + result) | 0;
  state[at + 3] = (counter + 1) | 0;
  return result >>> 0;
}
