/**
 * Percentiles of latencies of which only QEMU's histogram is known: counts of [2^N, 2^(N+1)) µs.
 * Who is compared with a QEMU is reckoned in the same way from the same buckets.
 */

/**
 * The latency that `percent` of all do not exceed, in µs: those of one bucket are taken to lie evenly
 * in it. NaN when nothing was counted.
 */
export function bucketPercentile(buckets: readonly number[], percent: number): number {
  const wanted = (percent / 100) * buckets.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [power, count] of buckets.entries()) {
    if (count > 0 && seen + count >= wanted) {
      // The first bucket also has all that were faster than 1 µs.
      const least = power === 0 ? 0 : 2 ** power;
      return least + ((2 ** (power + 1) - least) * (wanted - seen)) / count;
    }
    seen += count;
  }
  return Number.NaN;
}
