import { expect, test } from "bun:test";
import { COUNTER } from "../../../src/guests/stress/control-layout.ts";
import { StressControl } from "../../../src/guests/stress/control.ts";
import { WorkerControl } from "../../../src/guests/stress/worker-control.ts";
import type { PageMismatch } from "../../../src/guests/stress/mismatch.ts";

/** A control block with workers whose clock counts upwards. */
function controlOf(workers: number) {
  const control = StressControl.create(workers, 1);
  let now = 1000;
  const crew = Array.from({ length: workers }, (_, worker) => {
    return new WorkerControl(control.buffer, worker, () => now++);
  });
  return { control, crew };
}

const MISMATCH: PageMismatch = {
  page: 2 ** 28 - 1,
  version: 0x8000_0007,
  wordIndex: 1023,
  expected: 0,
  found: 0xffff_fffe,
  zero: false,
  holds: { page: 12, version: 0x7fff_ffff },
};

test("workers that have not begun count as paused and stopped", () => {
  const { control } = controlOf(3);
  expect(control.parked).toBe(true);
  expect(control.pause(0)).toBe(true);
  expect(control.stop(0)).toBe(true);
  expect(control.exited).toBe(false);
});

test("a worker that runs is not paused until it says so", () => {
  const { control, crew } = controlOf(2);
  const [first, second] = crew as [WorkerControl, WorkerControl];
  control.resume();
  for (const worker of crew) {
    worker.start();
    expect(worker.mayRun()).toBe(true);
  }
  expect(control.parked).toBe(false);
  expect(control.pause(5)).toBe(false);
  expect(control.parked).toBe(false);
  first.exit();
  expect(control.pause(5)).toBe(false);
  second.exit();
  expect(control.pause(0)).toBe(true);
  expect(control.exited).toBe(true);
});

test("a stop cannot be taken back", () => {
  const { control, crew } = controlOf(1);
  const [worker] = crew as [WorkerControl];
  worker.start();
  control.resume();
  expect(control.stop(0)).toBe(false);
  control.resume();
  expect(worker.stopped).toBe(true);
  expect(worker.mayRun()).toBe(false);
  worker.exit();
  expect(control.stop(0)).toBe(true);
});

test("tells when the guest first ran and last ran", () => {
  const { control, crew } = controlOf(2);
  const [first, second] = crew as [WorkerControl, WorkerControl];
  expect(control.runTimes()).toEqual({ firstNs: 0, lastNs: 0 });
  control.resume();
  for (const worker of crew) worker.start();
  second.mayRun();
  first.mayRun();
  expect(control.runTimes()).toEqual({ firstNs: 1000, lastNs: 0 });
  control.stop(0);
  first.mayRun();
  second.mayRun();
  // Returning later is no instruction of the guest.
  first.exit();
  second.exit();
  expect(control.runTimes()).toEqual({ firstNs: 1000, lastNs: 1003 });
});

test("keeps the first mismatch and counts all", () => {
  const { control, crew } = controlOf(2);
  const [first, second] = crew as [WorkerControl, WorkerControl];
  expect(control.mismatch()).toBeUndefined();
  second.reportMismatch(MISMATCH);
  first.reportMismatch({ ...MISMATCH, page: 1 });
  expect(control.mismatches).toBe(2);
  expect(control.mismatch()).toEqual(MISMATCH);
});

test("a mismatch without a known page has none", () => {
  const { control, crew } = controlOf(1);
  const { holds: _, ...torn } = MISMATCH;
  crew[0]!.reportMismatch({ ...torn, zero: true });
  expect(control.mismatch()).toEqual({ ...torn, zero: true });
});

test("adds up the counters of the workers; the longest access is the longest of all", () => {
  const { control, crew } = controlOf(3);
  for (const [index, worker] of crew.entries()) {
    worker.count(COUNTER.operations, 10 + index);
    worker.count(COUNTER.writes, 5);
    worker.count(COUNTER.reads, 3);
    worker.count(COUNTER.discards, 2);
    worker.count(COUNTER.populatedPages, 7);
    worker.countAccess(0.001);
    worker.countAccess(0.5 * (index + 1));
    worker.countAccess(0.019);
  }
  expect(control.totals()).toEqual({
    operations: 33,
    writes: 15,
    reads: 9,
    discards: 6,
    populatedPages: 21,
    stalls: 3,
    stallTotalMs: 3,
    longestAccessMs: 1.5,
  });
  expect(control.counters(1).longestAccessMs).toBe(1);
});

test("continues where other workers stopped", () => {
  const progress = [3, 4].map((operations) => ({
    operations,
    generator: Uint32Array.of(operations, 0xffff_ffff, 0, 9),
  }));
  const control = StressControl.continue(progress);
  expect(control.progress()).toEqual(progress);
  expect(control.populated).toBe(true);
  expect(StressControl.create(2, 1).populated).toBe(false);
  expect(() => StressControl.continue([])).toThrow(RangeError);
  expect(() => StressControl.create(65, 1)).toThrow(RangeError);
});
