/**
 * "Did you mean …?": the nearest of the words that would have been right.
 */

/** Words longer than this are not compared: nobody mistypes so long a word. */
const WORD_MAX = 64;

/**
 * Edit distance with swaps of neighbours counted as one (optimal string alignment), because "qiuet"
 * is one slip, not two.
 */
export function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const same = from[row - 1] === to[column - 1];
      let best = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
      );
      const swapped =
        row > 1 &&
        column > 1 &&
        from[row - 1] === to[column - 2] &&
        from[row - 2] === to[column - 1];
      if (swapped) best = Math.min(best, (beforeLast[column - 2] ?? 0) + 1);
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
}

/** What a match on the last part alone costs, so that a match on the whole word wins. */
const LAST_PART_COST = 0.5;

/**
 * The candidate nearest to `word`, or undefined when none is near: at most a third of the letters
 * may be wrong, in the whole candidate or in its last part ("bandwith" finds "max-bandwidth"), or
 * the word must be the beginning of exactly one candidate.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const plain = normalize(word);
  if (plain === "" || plain.length > WORD_MAX) return undefined;
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const candidate of candidates) {
    const whole = editDistance(plain, normalize(candidate));
    const lastPart = candidate.slice(candidate.lastIndexOf("-") + 1);
    const distance = Math.min(whole, editDistance(plain, normalize(lastPart)) + LAST_PART_COST);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  const allowed = Math.max(1, Math.floor(plain.length / 3)) + LAST_PART_COST;
  if (bestDistance <= allowed && bestDistance < plain.length) return best;
  const beginnings = candidates.filter((candidate) => normalize(candidate).startsWith(plain));
  return beginnings.length === 1 ? beginnings[0] : undefined;
}

/** Case and word separators are how one writes a word, not which word it is. */
function normalize(word: string): string {
  return word.toLowerCase().replaceAll(/[-_]/g, "");
}
