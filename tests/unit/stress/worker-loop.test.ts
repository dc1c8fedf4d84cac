import { describe, expect, test } from "bun:test";
import { fillPage } from "../../../src/guests/stress/pattern.ts";
import { pageOfRank, planWorker } from "../../../src/guests/stress/operation.ts";
import { createStressSetup } from "../../../src/guests/stress/setup.ts";
import { StressControl } from "../../../src/guests/stress/control.ts";
import { runStressWorker } from "../../../src/guests/stress/worker-loop.ts";
import { SharedMemory } from "./shared-memory.ts";
import { DEADLINE_MS, MEBIBYTE, smallParameters, StressGuest, until } from "./stress-guest.ts";

const NO_PAGE_WRONG = { pagesChecked: 1024, pagesWrong: 0 };
const MODEL_AGREES = { pagesChecked: 1024, pagesWrong: 0, workersAstray: 0 };

/** A page that worker 0 visits soon and often, and its place in the memory. */
function hotPage(guest: StressGuest): { page: number; words: Uint32Array; at: number } {
  const page = pageOfRank(planWorker(guest.setup.parameters, 0), 0);
  guest.world.map.seek(page);
  return { page, words: guest.world.map.window.words, at: guest.world.map.word };
}

describe("a guest", () => {
  test("is populated before it runs, and leaves its zero pages alone", async () => {
    await using guest = await StressGuest.create(smallParameters({ blocks: 3 }));
    expect(guest.control.totals()).toMatchObject({ operations: 0, populatedPages: 768 });
    expect(guest.world.versions.filter((version) => version === 1)).toHaveLength(768);
    expect(guest.world.versions.filter((version) => version === 0)).toHaveLength(256);
    expect(guest.audit()).toEqual(NO_PAGE_WRONG);
    expect(guest.model()).toEqual(MODEL_AGREES);
  });

  test("holds what its versions say and did what the model says, after many pauses", async () => {
    const parameters = smallParameters({ blocks: 2, workers: 3, discardRate: 0.02 });
    await using guest = await StressGuest.create(parameters);
    for (let round = 0; round < 20; round++) {
      await guest.run(500);
      expect(guest.audit()).toEqual(NO_PAGE_WRONG);
      expect(guest.model()).toEqual(MODEL_AGREES);
    }
    const totals = guest.control.totals();
    expect(totals.writes + totals.reads + totals.discards).toBe(totals.operations);
    expect(totals.operations).toBeGreaterThanOrEqual(30_000);
    expect(Math.min(totals.writes, totals.reads, totals.discards)).toBeGreaterThan(0);
    expect(guest.control.mismatches).toBe(0);
  });

  test("stands still between a pause and the resume, in a storm of them", async () => {
    await using guest = await StressGuest.create(smallParameters({ workers: 4 }));
    for (let round = 0; round < 300; round++) {
      guest.control.resume();
      // Some pauses come before the workers have woken up from the last one.
      if (round % 3 !== 0) await new Promise((resolve) => setImmediate(resolve));
      expect(guest.control.pause(DEADLINE_MS)).toBe(true);
      expect(guest.control.parked).toBe(true);
      const before = { progress: guest.control.progress(), versions: guest.world.versions.slice() };
      if (round % 10 === 0) expect(guest.audit()).toEqual(NO_PAGE_WRONG);
      else await new Promise((resolve) => setImmediate(resolve));
      expect(guest.control.progress()).toEqual(before.progress);
      expect(guest.world.versions).toEqual(before.versions);
    }
    expect(guest.model()).toEqual(MODEL_AGREES);
    expect(guest.control.mismatches).toBe(0);
  });

  test("keeps its rate", async () => {
    // 100 pages a second for each of two workers.
    await using guest = await StressGuest.create(smallParameters({ rate: 200 * 4096 }));
    const began = performance.now();
    await guest.run(20);
    // Each worker may be a burst ahead: the first pages are free.
    expect(performance.now() - began).toBeGreaterThan(150);
    expect(guest.model()).toEqual(MODEL_AGREES);
  });

  test("pauses at once while it waits for its turn", async () => {
    // A page in 40 seconds for each of two workers.
    await using guest = await StressGuest.create(smallParameters({ rate: 205, zeroFraction: 0 }));
    await guest.run(1);
    guest.control.resume();
    await until(() => !guest.control.parked);
    expect(guest.control.pause(DEADLINE_MS)).toBe(true);
    expect(guest.control.stop(DEADLINE_MS)).toBe(true);
    expect(guest.control.totals().operations).toBeLessThan(10);
  });

  test("tells when it ran and how long its accesses took", async () => {
    await using guest = await StressGuest.create(smallParameters());
    await guest.run(2000);
    const { firstNs, lastNs } = guest.control.runTimes();
    expect(firstNs).toBeGreaterThan(0);
    expect(lastNs).toBeGreaterThan(0);
    const totals = guest.control.totals();
    expect(totals.longestAccessMs).toBeGreaterThan(0);
    expect(totals.stallTotalMs).toBeGreaterThanOrEqual(totals.stalls * 0.02);
  });

  test("stops for good, parked or running", async () => {
    await using parked = await StressGuest.create(smallParameters());
    expect(parked.control.stop(DEADLINE_MS)).toBe(true);
    expect(parked.control.exited).toBe(true);
    await using running = await StressGuest.create(smallParameters());
    running.control.resume();
    expect(running.control.stop(DEADLINE_MS)).toBe(true);
    expect(await running.ends).toEqual([undefined, undefined]);
    expect(running.audit()).toEqual(NO_PAGE_WRONG);
    expect(running.model()).toEqual(MODEL_AGREES);
  });
});

describe("a worker finds", () => {
  /** Spoils the guest's memory while it is paused and lets it run until it finds out. */
  async function find(spoil: (guest: StressGuest) => void) {
    await using guest = await StressGuest.create(smallParameters({ hotFraction: 0.02 }));
    await guest.run(1000);
    spoil(guest);
    guest.control.resume();
    await until(() => guest.control.mismatch() !== undefined);
    expect(await Promise.race([guest.ends, undefined])).toBeUndefined();
    expect(guest.control.mismatches).toBe(1);
    // The other worker goes on until it is told to stop.
    const before = guest.control.counters(1).operations;
    await until(() => guest.control.counters(1).operations > before);
    expect(guest.control.pause(DEADLINE_MS)).toBe(true);
    return guest.control.mismatch()!;
  }

  test("one flipped bit", async () => {
    let spoilt = -1;
    const mismatch = await find((guest) => {
      const { page, words, at } = hotPage(guest);
      spoilt = page;
      words[at + 700]! ^= 1 << 17;
    });
    expect(mismatch).toMatchObject({ page: spoilt, wordIndex: 700, zero: false });
    expect((mismatch.expected ^ mismatch.found) >>> 0).toBe(1 << 17);
  });

  test("a stale page, and says which version it is", async () => {
    const mismatch = await find((guest) => {
      const { page } = hotPage(guest);
      const { map, pattern } = guest.world;
      fillPage(pattern, map.window, map.word, page, 1);
      guest.world.versions[page] = 9;
    });
    expect(mismatch.version).toBe(9);
    expect(mismatch.holds).toEqual({ page: mismatch.page, version: 1 });
  });

  test("another page in its place", async () => {
    const mismatch = await find((guest) => {
      const { page } = hotPage(guest);
      const { map, pattern } = guest.world;
      fillPage(pattern, map.window, map.word, page + 2, 5);
      guest.world.versions[page] = 5;
    });
    expect(mismatch.holds).toEqual({ page: mismatch.page + 2, version: 5 });
  });

  test("a page that was lost", async () => {
    const mismatch = await find((guest) => {
      const { page, words, at } = hotPage(guest);
      words.fill(0, at, at + 1024);
      guest.world.versions[page] = 5;
    });
    expect(mismatch).toMatchObject({ version: 5, wordIndex: 0, zero: true });
  });

  test("a discarded page that came back", async () => {
    const mismatch = await find((guest) => {
      const { page } = hotPage(guest);
      const { map, pattern } = guest.world;
      fillPage(pattern, map.window, map.word, page, 4);
      guest.world.versions[page] = 0x8000_0005;
    });
    expect(mismatch).toMatchObject({ version: 0x8000_0005, expected: 0 });
    expect(mismatch.holds).toEqual({ page: mismatch.page, version: 4 });
  });

  test("a zero page that is none", async () => {
    await using guest = await StressGuest.create(smallParameters({ zeroFraction: 0.9 }));
    const plan = planWorker(guest.setup.parameters, 0);
    for (let rank = plan.writtenPages; rank < plan.pages; rank++) {
      guest.world.map.seek(pageOfRank(plan, rank));
      guest.world.map.window.words[guest.world.map.word + 5] = 1;
    }
    guest.control.resume();
    await until(() => guest.control.mismatch() !== undefined);
    expect(guest.control.mismatch()).toMatchObject({ version: 0, wordIndex: 5, found: 1 });
  });
});

describe("in one thread", () => {
  test("an error of the memory passes through, and the worker counts as exited", () => {
    const parameters = smallParameters({ workers: 1, discardRate: 1, zeroFraction: 0 });
    const memory = SharedMemory.allocate(parameters);
    memory.discardError = "madvise failed";
    const setup = createStressSetup(parameters, memory.ranges);
    const control = new StressControl(setup.control);
    control.resume();
    expect(() => runStressWorker(setup, 0, memory, () => 1)).toThrow("madvise failed");
    expect(control.exited).toBe(true);
    expect(control.awaitPopulated(0)).toBe(true);
  });

  test("a stop ends the populating", () => {
    const parameters = smallParameters({ workers: 1 });
    const memory = SharedMemory.allocate(parameters);
    const setup = createStressSetup(parameters, memory.ranges);
    const control = new StressControl(setup.control);
    control.stop(0);
    runStressWorker(setup, 0, memory, () => 1);
    expect(control.exited).toBe(true);
    expect(control.awaitPopulated(DEADLINE_MS)).toBe(false);
    expect(control.totals().populatedPages).toBe(0);
  });

  test("blocks of other sizes than the parameters' are refused", () => {
    const memory = SharedMemory.allocate(smallParameters({ size: 2 * MEBIBYTE }));
    expect(() => createStressSetup(smallParameters(), memory.ranges)).toThrow(RangeError);
  });
});
