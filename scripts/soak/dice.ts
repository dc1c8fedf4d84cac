/** Random choices that a seed repeats. */
import { GENERATOR_WORDS, nextRandom, seedGenerator } from "../../src/guests/stress/generator.ts";

export class Dice {
  readonly #state = new Int32Array(GENERATOR_WORDS);

  constructor(seed: number) {
    seedGenerator(this.#state, 0, seed, 0);
  }

  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number {
    return least + (nextRandom(this.#state, 0) % (most - least + 1));
  }

  pick<T>(choices: readonly T[]): T {
    const chosen = choices[this.between(0, choices.length - 1)];
    if (chosen === undefined) throw new RangeError("nothing to choose from");
    return chosen;
  }

  chance(percent: number): boolean {
    return this.between(1, 100) <= percent;
  }
}
