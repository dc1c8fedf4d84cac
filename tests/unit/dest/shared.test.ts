import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  requestTicks,
  ticksSince,
  WORD,
} from "../../../src/dest/shared.ts";

/** Seven minutes, the longest time that 32 bits of ticks can tell from none. */
const SPAN_NS = 400e9;

describe("the time of a request", () => {
  test("is never 0, which would mean that there is none", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (nowNs) => {
        expect(requestTicks(nowNs)).not.toBe(0);
        // As it is stored: a word of 32 bits.
        expect(requestTicks(nowNs) | 0).toBe(requestTicks(nowNs));
      }),
    );
    expect(requestTicks(0)).toBe(-1);
  });

  test("gives the time since, to a tenth of a microsecond, across the edges of 32 bits", () => {
    const start = fc.oneof(
      fc.maxSafeNat().map((ns) => Math.floor(ns / 2)),
      fc.nat({ max: 2000 }).map((n) => 2 ** 32 * 100 - 1000 + n),
      fc.nat({ max: 2000 }).map((n) => 2 ** 31 * 100 - 1000 + n),
    );
    const words = new Int32Array(new SharedArrayBuffer(4));
    fc.assert(
      fc.property(start, fc.nat({ max: SPAN_NS / 100 }), (startNs, ticks) => {
        const elapsedNs = ticks * 100;
        Atomics.store(words, 0, requestTicks(startNs));
        const seen = ticksSince(Atomics.load(words, 0), startNs + elapsedNs);
        expect(Math.abs(elapsedNs - seen)).toBeLessThanOrEqual(100);
      }),
      { numRuns: 1000 },
    );
  });

  test("of a page that came at once is not seven minutes ago", () => {
    for (let ns = 0; ns < 1000; ns += 50) {
      expect(ticksSince(requestTicks(ns), ns)).toBeLessThan(1000);
    }
  });
});

test("what is shared is the same in another thread", () => {
  const data = createDestShared();
  const [one, other] = [new DestShared(data), new DestShared(structuredClone(data))];
  expect(Atomics.load(one.control, WORD.userfaultFd)).toBe(-1);
  Atomics.store(one.control, WORD.missing, 5);
  expect(Atomics.load(other.control, WORD.missing)).toBe(5);
  one.listenThreadSem.post();
  expect(other.listenThreadSem.wait(0)).toBe(true);
  one.faultThreadDone.post();
  // Ready is one thing, ended another.
  expect(other.faultThreadSem.wait(0)).toBe(false);
  expect(other.faultThreadDone.wait(0)).toBe(true);
  one.position.set([2 ** 47, 4096, 1, 2, 2 ** 40]);
  expect([...other.position]).toEqual([2 ** 47, 4096, 1, 2, 2 ** 40]);
});

test("page state has a place for each target page of each block", () => {
  const blocks = [
    { index: 0, name: "a", length: 100 * 4096, pageSize: 4096, address: 0 },
    { index: 1, name: "b", length: 2 ** 21, pageSize: 2 ** 21, address: 0 },
  ];
  const data = createPageState(blocks);
  const [one, other] = [attachPageState(data, blocks), attachPageState(data, blocks)];
  one.received[1]?.set(511);
  one.removed[0]?.set(99);
  expect([other.received[1]?.count(), other.removed[0]?.count()]).toEqual([1, 1]);
  expect(other.requestedAt.map((words) => words.length)).toEqual([100, 512]);
  expect(other.unpopulated.map((bitmap) => bitmap.pages)).toEqual([100, 512]);
});
