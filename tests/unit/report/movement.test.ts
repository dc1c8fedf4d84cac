import { afterEach, expect, jest, test } from "bun:test";
import { MovementLog, sampleRegularly } from "../../../src/report/movement.ts";

afterEach(() => jest.useRealTimers());

const KINDS = 4;

/** The sums over all samples, by kind and bin. */
function sums({ samples }: MovementLog, length: number): number[] {
  return Array.from({ length }, (_, index) => {
    return samples.reduce((sum, { pages }) => sum + (pages[index] ?? 0), 0);
  });
}

test("a sample has what moved since the one before; nothing is kept before the first page", () => {
  const log = new MovementLog(1, KINDS);
  const counts = new Uint32Array(KINDS);
  log.take(counts, 100, undefined);
  log.take(counts, 200, 0.5);
  expect(log.samples).toEqual([]);
  expect(log.beginNs).toBe(200);
  counts[1] = 5;
  log.take(counts, 300, 0.25);
  counts[0] = 2;
  counts[1] = 6;
  log.take(counts, 400, undefined);
  expect(log.samples.map(({ endNs, pages, resident }) => [endNs, [...pages], resident])).toEqual([
    [300, [0, 5, 0, 0], 0.25],
    [400, [2, 1, 0, 0], undefined],
  ]);
});

test("however long it takes there are never more than 600, which lose no page", () => {
  const log = new MovementLog(3, KINDS);
  const counts = new Uint32Array(3 * KINDS);
  const samples = 5000;
  for (let sample = 1; sample <= samples; sample++) {
    counts[sample % counts.length] = (counts[sample % counts.length] ?? 0) + sample;
    log.take(counts, sample * 10, sample / samples);
    expect(log.samples.length).toBeLessThanOrEqual(600);
  }
  expect(sums(log, counts.length)).toEqual([...counts]);
  expect(log.samples.at(-1)).toMatchObject({ endNs: samples * 10, resident: 1 });
  const ends = log.samples.map(({ endNs }) => endNs);
  expect(ends).toEqual(ends.toSorted((a, b) => a - b));
  // 10 ms, and twice as long after each time that there were too many.
  expect(Math.log2(log.intervalMs / 10)).toBeInteger();
  expect(log.intervalMs).toBeGreaterThan(10);
});

test("counts that begin anew, as those of a second try do, take nothing back", () => {
  const log = new MovementLog(1, KINDS);
  log.take(new Uint32Array([10, 0, 0, 0]), 1, undefined);
  log.take(new Uint32Array([0, 0, 0, 0]), 2, undefined);
  log.take(new Uint32Array([4, 0, 0, 0]), 3, undefined);
  expect(sums(log, KINDS)).toEqual([14, 0, 0, 0]);
});

test("samples are taken at once, whenever one is due, and at the end", () => {
  jest.useFakeTimers();
  const log = new MovementLog(1, KINDS);
  let taken = 0;
  const stop = sampleRegularly(log, () => taken++);
  expect(taken).toBe(1);
  jest.advanceTimersByTime(35);
  expect(taken).toBe(4);
  log.intervalMs = 1000;
  jest.advanceTimersByTime(500);
  expect(taken).toBe(5);
  stop();
  jest.advanceTimersByTime(5000);
  expect(taken).toBe(6);
});
