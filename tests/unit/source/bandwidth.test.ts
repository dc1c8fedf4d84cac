import { describe, expect, test } from "bun:test";
import { Bandwidth } from "../../../src/source/bandwidth.ts";

const never = (): boolean => false;

/** How long something takes, in milliseconds. */
function timed(action: () => void): number {
  const began = performance.now();
  action();
  return performance.now() - began;
}

describe("a bandwidth limit", () => {
  test("of 0 is none", () => {
    const bandwidth = new Bandwidth(0);
    // With any limit it would not come to its end.
    for (let i = 0; i < 1000; i++) bandwidth.spend(2 ** 40, never);
  });

  test("is kept over many pieces, after a tenth of a second that is free", () => {
    const bandwidth = new Bandwidth(10_000_000);
    // 400 ms' worth in pieces of 1 ms, of which 100 ms' worth is the burst.
    const tookMs = timed(() => {
      for (let i = 0; i < 400; i++) bandwidth.spend(10_000, never);
    });
    expect(tookMs).toBeGreaterThan(290);
  });

  test("saves nothing up in idle times beyond its burst", () => {
    const bandwidth = new Bandwidth(10_000_000);
    bandwidth.spend(10_000, never);
    const idleUntil = performance.now() + 400;
    while (performance.now() < idleUntil);
    const tookMs = timed(() => {
      for (let i = 0; i < 300; i++) bandwidth.spend(10_000, never);
    });
    expect(tookMs).toBeGreaterThan(190);
  });

  test("does not hold up whoever has something better to do", () => {
    const bandwidth = new Bandwidth(1000);
    let looks = 0;
    // A quarter of an hour's worth.
    bandwidth.spend(1_000_000, () => ++looks === 3);
    expect(looks).toBe(3);
  });

  test("is still owed after a wait that was broken off", () => {
    const bandwidth = new Bandwidth(1_000_000);
    bandwidth.spend(400_000, () => true);
    const tookMs = timed(() => bandwidth.spend(0, never));
    expect(tookMs).toBeGreaterThan(200);
  });
});
