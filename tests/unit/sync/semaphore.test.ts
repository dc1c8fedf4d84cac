import { describe, expect, test } from "bun:test";
import { SharedEvent } from "../../../src/sync/event.ts";
import { Semaphore } from "../../../src/sync/semaphore.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as LocksFixture from "../../fixtures/locks.ts";

const FIXTURE = import.meta.resolve("../../fixtures/locks.ts");

function thread() {
  return startThread<typeof LocksFixture>(FIXTURE);
}

describe("a semaphore", () => {
  test("lets through as many as were posted, before or after they came", () => {
    const semaphore = new Semaphore();
    expect(semaphore.wait(0)).toBe(false);
    semaphore.post();
    semaphore.post();
    expect([semaphore.wait(0), semaphore.wait(), semaphore.wait(0)]).toEqual([true, true, false]);
  });

  test("gives up at its deadline, and not before", () => {
    const semaphore = new Semaphore();
    for (const limitMs of [0.5, 30]) {
      const began = performance.now();
      expect(semaphore.wait(limitMs)).toBe(false);
      expect(performance.now() - began).toBeGreaterThanOrEqual(limitMs * 0.99);
    }
  });

  test("is the same in another thread", async () => {
    await using other = await thread();
    const semaphore = new Semaphore();
    const waiting = other.call("take", semaphore.shared, 10_000);
    semaphore.post();
    expect(await waiting).toBe(true);
    expect(await other.call("take", semaphore.shared, 20)).toBe(false);
  });

  test("gives each unit to exactly one of several waiters", async () => {
    await using first = await thread();
    await using second = await thread();
    const semaphore = new Semaphore();
    const taking = [first, second].map((one) => one.call("takeAll", semaphore.shared, 300));
    const units = new Int32Array(semaphore.shared);
    for (let i = 0; i < 20_000; i++) {
      semaphore.post();
      // Now and then let them run dry, so that both park.
      if (i % 1000 === 0) await waitUntil(() => Atomics.load(units, 0) === 0, "the units' end");
    }
    const taken = await Promise.all(taking);
    expect(taken[0]! + taken[1]!).toBe(20_000);
    expect(semaphore.wait(0)).toBe(false);
  });

  test("loses no post in a long ping-pong", async () => {
    await using one = await thread();
    await using other = await thread();
    const [ping, pong] = [new Semaphore(), new Semaphore()];
    const playing = [
      one.call("pingPong", ping.shared, pong.shared, 3000),
      other.call("pingPong", pong.shared, ping.shared, 3000),
    ];
    ping.post();
    expect(await Promise.all(playing)).toEqual([3000, 3000]);
  });
});

describe("an event", () => {
  test("stays set, for those who waited and for those who come later", async () => {
    await using one = await thread();
    await using other = await thread();
    const ready = new Semaphore();
    let event = new SharedEvent();
    for (let round = 0; round < 20; round++) {
      event = new SharedEvent();
      const waiting = [one, other].map((each) => {
        return each.call("awaitEvent", ready.shared, event.shared, 5_000);
      });
      expect([ready.wait(10_000), ready.wait(10_000)]).toEqual([true, true]);
      expect(event.isSet).toBe(false);
      // They spin for some microseconds before they park; both must be parked in most rounds.
      const parked = performance.now() + 1;
      while (performance.now() < parked);
      event.set();
      expect(await Promise.all(waiting)).toEqual([true, true]);
    }
    expect(event.isSet).toBe(true);
    expect(event.wait()).toBe(true);
    expect(await one.call("awaitEvent", ready.shared, event.shared, 0)).toBe(true);
  });

  test("that is not set in time is not", () => {
    const event = new SharedEvent();
    const began = performance.now();
    expect(event.wait(25)).toBe(false);
    expect(performance.now() - began).toBeGreaterThanOrEqual(24);
    expect(event.wait(0)).toBe(false);
  });
});
