import { describe, expect, spyOn, test } from "bun:test";
import { SharedEvent } from "../../../src/sync/event.ts";
import { Mutex } from "../../../src/sync/mutex.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as LocksFixture from "../../fixtures/locks.ts";

const FIXTURE = import.meta.resolve("../../fixtures/locks.ts");

function thread() {
  return startThread<typeof LocksFixture>(FIXTURE);
}

describe("a lock", () => {
  test("lets one thread at a time through, urgent or not", async () => {
    await using first = await thread();
    await using second = await thread();
    await using urgent = await thread();
    const mutex = new Mutex();
    const counter = new SharedArrayBuffer(8);
    const times = 20_000;
    await Promise.all([
      first.call("countUnder", mutex.shared, counter, times, false),
      second.call("countUnder", mutex.shared, counter, times, false),
      urgent.call("countUnder", mutex.shared, counter, times, true),
    ]);
    expect(new Int32Array(counter)[0]).toBe(3 * times);
    // Nobody is left behind: it is free.
    mutex.lock();
    mutex.unlock();
    mutex.lockUrgent();
    mutex.unlock();
  });

  test("that is held keeps a thread waiting until it is free, in both ways of asking", async () => {
    await using other = await thread();
    const mutex = new Mutex();
    const counter = new SharedArrayBuffer(8);
    for (const urgent of [false, true]) {
      mutex.lock();
      const counting = other.call("countUnder", mutex.shared, counter, 1, urgent);
      // The first word of the lock is 2 once somebody is parked.
      const word = new Int32Array(mutex.shared);
      await waitUntil(() => Atomics.load(word, 0) === 2, "a thread that waits for the lock");
      expect(new Int32Array(counter)[0]).toBe(urgent ? 1 : 0);
      mutex.unlock();
      await counting;
    }
    expect(new Int32Array(counter)[0]).toBe(2);
  });

  test("that is held is not got by a try, and one that is free is", () => {
    const mutex = new Mutex();
    expect(mutex.tryLock()).toBe(true);
    expect(mutex.tryLock()).toBe(false);
    mutex.unlock();
    expect(mutex.tryLock()).toBe(true);
  });

  test("calls those whom urgent callers keep waiting, and nobody where there are none", async () => {
    await using other = await thread();
    const mutex = new Mutex();
    const counter = new SharedArrayBuffer(8);
    const words = new Int32Array(mutex.shared);
    using notify = spyOn(Atomics, "notify");
    const callUrgently = (): boolean => {
      mutex.lockUrgent();
      mutex.unlock();
      return notify.mock.calls.some(
        ([array, index]) => array.buffer === words.buffer && index === 1,
      );
    };
    expect(callUrgently()).toBe(false);
    // The second word of the lock counts urgent callers, the third who is parked for them.
    Atomics.add(words, 1, 1);
    const counting = other.call("countUnder", mutex.shared, counter, 1, false);
    await waitUntil(() => Atomics.load(words, 2) === 1, "a thread that lets others go first");
    // It looks up now and then, and is not parked for that moment.
    await waitUntil(callUrgently, "a call for it");
    expect(new Int32Array(counter)[0]).toBe(0);
    Atomics.sub(words, 1, 1);
    await counting;
    expect([...words]).toEqual([0, 0, 0]);
  });

  test("goes to who asks urgently after the piece of work under way", async () => {
    await using hog = await thread();
    await using urgent = await thread();
    const mutex = new Mutex();
    const counter = new SharedArrayBuffer(8);
    const stop = new SharedEvent();
    const hogging = hog.call("hogUntil", mutex.shared, counter, stop.shared, 2);
    await urgent.call("lockUrgently", mutex.shared, counter, 60);
    stop.set();
    // Between two pieces the hog may be faster by one, however the threads are scheduled.
    expect(await hogging).toBeLessThanOrEqual(1);
    expect(new Int32Array(counter)[0]).toBeGreaterThanOrEqual(60);
  });
});
