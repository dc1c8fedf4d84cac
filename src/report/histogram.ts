/**
 * A histogram of latencies that one thread fills and others read: log-linear buckets, 128 to every
 * power of two, from 1 ns to 68 s, so that any value read back is within 0.8 % of the recorded one.
 * It lies in a SharedArrayBuffer: a worker that is blocked can still be read.
 *
 * Layout: five float64 (count, sum, least, greatest, unused), then one uint32 a bucket.
 *
 * The bucket of a value is its float64 exponent and the top seven bits of its mantissa, which lie
 * side by side in the number's upper half. With 128 buckets a power of two, 1000 · 2^N ns is always
 * a bucket's edge (1000 = 512 · (1 + 122/128)), so the buckets of QEMU's postcopy-latency-dist,
 * which are powers of two in µs, come out exactly.
 */

const SUB_BUCKET_BITS = 7;
const SUB_BUCKETS = 2 ** SUB_BUCKET_BITS;
/** 2^36 ns is 68.7 s: no fault that is still of interest waits longer. */
const POWERS = 36;
const BUCKETS = POWERS * SUB_BUCKETS;
const VALUE_NS_MIN = 1;
const VALUE_NS_MAX = 2 ** POWERS - 1;

/** Bits of a float64's upper half that are below the bucket number. */
const UPPER_HALF_SHIFT = 20 - SUB_BUCKET_BITS;
/** The bucket number of 1.0, whose biased exponent is 1023. */
const BUCKET_OF_ONE = 1023 * SUB_BUCKETS;

const COUNT = 0;
const SUM = 1;
const LEAST = 2;
const GREATEST = 3;
const HEADER_BYTES = 5 * Float64Array.BYTES_PER_ELEMENT;
const HISTOGRAM_BYTES = HEADER_BYTES + BUCKETS * Uint32Array.BYTES_PER_ELEMENT;

/** Buckets of QEMU's postcopy-latency-dist: bucket N counts [2^N, 2^(N+1)) µs. */
export const MICROSECOND_BUCKETS = 24;

// A float64 seen as two words; one a thread, as a module is loaded once a thread.
const scratch = new ArrayBuffer(8);
const scratchFloat = new Float64Array(scratch);
const scratchWords = new Uint32Array(scratch);

function bucketOf(valueNs: number): number {
  scratchFloat[0] = valueNs;
  return ((scratchWords[1] ?? 0) >>> UPPER_HALF_SHIFT) - BUCKET_OF_ONE;
}

/** The least value of a bucket, in ns. */
function edgeOf(bucket: number): number {
  const power = 2 ** (bucket >>> SUB_BUCKET_BITS);
  return power + (power * (bucket & (SUB_BUCKETS - 1))) / SUB_BUCKETS;
}

/** What a histogram says, as reports have it. All in ns; all zero when nothing was recorded. */
export interface LatencySummary {
  count: number;
  mean: number;
  min: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
  /** Counts of [2^N, 2^(N+1)) µs, as QEMU's postcopy-latency-dist; faster ones are in the first. */
  buckets: number[];
}

export class Histogram {
  readonly shared: SharedArrayBuffer;
  readonly #header: Float64Array;
  readonly #buckets: Uint32Array;

  /** A new histogram, or the one that another thread's `shared` holds. */
  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(HISTOGRAM_BYTES)) {
    if (shared.byteLength !== HISTOGRAM_BYTES) throw new Error("this is not a histogram");
    this.shared = shared;
    this.#header = new Float64Array(shared, 0, HEADER_BYTES / Float64Array.BYTES_PER_ELEMENT);
    this.#buckets = new Uint32Array(shared, HEADER_BYTES);
  }

  /** Counts one latency. One thread only; allocates nothing; outliers count as 1 ns or 68 s. */
  record(valueNs: number): void {
    let value = valueNs;
    // Written so that NaN becomes the least value too.
    if (!(value >= VALUE_NS_MIN)) value = VALUE_NS_MIN;
    else if (value > VALUE_NS_MAX) value = VALUE_NS_MAX;
    const header = this.#header;
    const bucket = bucketOf(value);
    this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + 1;
    const count = header[COUNT] ?? 0;
    header[SUM] = (header[SUM] ?? 0) + value;
    if (count === 0 || value < (header[LEAST] ?? 0)) header[LEAST] = value;
    if (value > (header[GREATEST] ?? 0)) header[GREATEST] = value;
    header[COUNT] = count + 1;
  }

  get count(): number {
    return this.#header[COUNT] ?? 0;
  }

  /** The exact mean in ns; 0 when nothing was recorded. */
  get mean(): number {
    return this.count === 0 ? 0 : (this.#header[SUM] ?? 0) / this.count;
  }

  get min(): number {
    return this.#header[LEAST] ?? 0;
  }

  get max(): number {
    return this.#header[GREATEST] ?? 0;
  }

  /** Adds another histogram's counts to this one. */
  merge(other: Histogram): void {
    if (other.count === 0) return;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + (other.#buckets[bucket] ?? 0);
    }
    const header = this.#header;
    header[LEAST] = this.count === 0 ? other.min : Math.min(this.min, other.min);
    header[GREATEST] = Math.max(this.max, other.max);
    header[SUM] = (header[SUM] ?? 0) + (other.#header[SUM] ?? 0);
    header[COUNT] = this.count + other.count;
  }

  /**
   * The latency that `percent` of all do not exceed (nearest rank), in ns: the middle of its
   * bucket, so within 0.4 % of the recorded value. 0 when nothing was recorded.
   */
  percentile(percent: number): number {
    if (!(percent >= 0 && percent <= 100)) throw new RangeError(`no percentage: ${percent}`);
    const rank = Math.max(1, Math.ceil((percent / 100) * this.count));
    if (rank >= this.count) return this.max;
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#buckets[bucket] ?? 0;
      if (seen < rank) continue;
      const middle = (edgeOf(bucket) + edgeOf(bucket + 1)) / 2;
      return Math.min(this.max, Math.max(this.min, middle));
    }
    return this.max;
  }

  /** Counts of [2^N, 2^(N+1)) µs; the first also has all that were faster, the last all slower. */
  microsecondBuckets(): number[] {
    const counts = Array.from({ length: MICROSECOND_BUCKETS }, () => 0);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const inBucket = this.#buckets[bucket] ?? 0;
      if (inBucket === 0) continue;
      const power = Math.floor(Math.log2(edgeOf(bucket) / 1000));
      const index = Math.min(MICROSECOND_BUCKETS - 1, Math.max(0, power));
      counts[index] = (counts[index] ?? 0) + inBucket;
    }
    return counts;
  }

  /** All that was recorded, fastest first: how many were below `belowNs`, and not below the last. */
  distribution(): { belowNs: number; count: number }[] {
    const steps: { belowNs: number; count: number }[] = [];
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = this.#buckets[bucket] ?? 0;
      if (count > 0) steps.push({ belowNs: edgeOf(bucket + 1), count });
    }
    return steps;
  }

  /** The figures of a report. */
  summary(): LatencySummary {
    return {
      count: this.count,
      mean: this.mean,
      min: this.min,
      p50: this.percentile(50),
      p90: this.percentile(90),
      p99: this.percentile(99),
      max: this.max,
      buckets: this.microsecondBuckets(),
    };
  }
}
