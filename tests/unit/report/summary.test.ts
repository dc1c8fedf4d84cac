import { expect, test } from "bun:test";
import {
  DEST,
  DEST_COUNTERS,
  DEST_PHASES,
  SOURCE,
  SOURCE_COUNTERS,
  SOURCE_PHASES,
} from "../../../src/report/counters.ts";
import {
  destCounts,
  destPhase,
  destProgress,
  destResidency,
  sourceCounts,
  sourcePhase,
  sourceProgress,
  sourceResidency,
} from "../../../src/report/summary.ts";

test("the source's counts are sums over its threads", () => {
  const counters = SOURCE_COUNTERS.create();
  counters.add(SOURCE.bytesPrecopy, 1);
  counters.add(SOURCE.bytesPackage, 20);
  counters.add(SOURCE.bytesPostcopy, 300);
  counters.add(SOURCE.bytesRequested, 4000);
  counters.add(SOURCE.requestsDuplicate, 5);
  const { bytes, requests } = sourceCounts(counters);
  expect(bytes.total).toBe(4321);
  expect(requests).toEqual({ received: 0, served: 0, duplicate: 5, remoteShare: null });
});

test("the source's remaining pages are the dirty ones, then the owed ones", () => {
  const counters = SOURCE_COUNTERS.create();
  expect(sourcePhase(counters)).toBe("setup");
  counters.set(SOURCE.phase, 1);
  counters.set(SOURCE.round, 3);
  counters.set(SOURCE.dirtyPages, 500);
  counters.add(SOURCE.pagesNormalPrecopy, 1000);
  expect(sourceProgress(counters, 7)).toMatchObject({
    phase: "precopy",
    round: 3,
    elapsedMs: 7,
    donePages: 1000,
    remainingPages: 500,
    dirtyPages: 500,
  });
  counters.set(SOURCE.phase, 3);
  counters.set(SOURCE.owedPages, 400);
  counters.add(SOURCE.pagesPushed, 100);
  counters.add(SOURCE.pagesPushedZero, 1);
  counters.add(SOURCE.pagesRequested, 10);
  counters.add(SOURCE.pagesRequestedZero, 2);
  expect(sourceProgress(counters, 8)).toMatchObject({
    phase: "postcopy",
    round: null,
    donePages: 1113,
    remainingPages: 287,
    dirtyPages: null,
  });
  for (const phase of ["paused", "recover"] as const) {
    counters.set(SOURCE.phase, SOURCE_PHASES.indexOf(phase));
    expect(sourceProgress(counters, 9)).toMatchObject({ phase, remainingPages: 287 });
  }
});

test("the destination's counts are sums over its threads", () => {
  const counters = DEST_COUNTERS.create();
  counters.add(DEST.bytesReceived, 100);
  counters.add(DEST.bytesUrgent, 11);
  counters.add(DEST.placeExists, 1);
  counters.add(DEST.urgentExists, 2);
  counters.add(DEST.placeRetries, 3);
  counters.add(DEST.urgentRetries, 4);
  counters.add(DEST.pagesDropped, 5);
  counters.add(DEST.urgentDropped, 6);
  const { bytes, places, pages } = destCounts(counters);
  expect(bytes.total).toBe(111);
  expect(places).toEqual({ exists: 3, retries: 7 });
  expect(pages.dropped).toBe(11);
});

test("the destination says what remains only once it knows", () => {
  const counters = DEST_COUNTERS.create();
  expect(destPhase(counters)).toBe("waiting");
  counters.set(DEST.phase, 1);
  counters.add(DEST.pagesPrecopy, 50);
  expect(destProgress(counters, 1)).toMatchObject({ remainingPages: null, donePages: 50 });
  counters.set(DEST.phase, 3);
  counters.set(DEST.missingPages, 30);
  counters.add(DEST.pagesPushed, 10);
  counters.add(DEST.pagesUrgentZero, 4);
  counters.add(DEST.removedPages, 1);
  counters.add(DEST.faultsRemote, 5);
  expect(destProgress(counters, 2)).toMatchObject({
    phase: "postcopy",
    remainingPages: 15,
    donePages: 64,
    faults: 5,
  });
});

test("how much is at the destination: all but what is dirty, then all but what is owed", () => {
  const counters = SOURCE_COUNTERS.create();
  const inPhase = (phase: (typeof SOURCE_PHASES)[number]): number | undefined => {
    counters.set(SOURCE.phase, SOURCE_PHASES.indexOf(phase));
    return sourceResidency(counters);
  };
  counters.set(SOURCE.totalPages, 1000);
  expect(inPhase("setup")).toBeUndefined();
  counters.set(SOURCE.dirtyPages, 250);
  expect(inPhase("precopy")).toBe(0.75);
  expect(inPhase("device")).toBe(0.75);
  // A host page is owed as a whole, so more is owed than was dirty.
  counters.set(SOURCE.owedPages, 400);
  expect(inPhase("device")).toBe(0.6);
  counters.add(SOURCE.pagesPushed, 100);
  counters.add(SOURCE.pagesRequestedZero, 100);
  expect(inPhase("postcopy")).toBe(0.8);
  expect(inPhase("paused")).toBe(0.8);
});

test("how much is here is known from the switchover on", () => {
  const counters = DEST_COUNTERS.create();
  counters.set(DEST.totalPages, 100);
  counters.set(DEST.phase, DEST_PHASES.indexOf("precopy"));
  expect(destResidency(counters)).toBeUndefined();
  counters.set(DEST.phase, DEST_PHASES.indexOf("device"));
  expect(destResidency(counters)).toBeUndefined();
  // LISTEN counts what lacks, while the device state is still being loaded.
  counters.set(DEST.missingPages, 40);
  counters.add(DEST.pagesPushed, 10);
  expect(destResidency(counters)).toBe(0.7);
  counters.set(DEST.phase, DEST_PHASES.indexOf("postcopy"));
  expect(destResidency(counters)).toBe(0.7);
});

test("the share of remote faults is of pages, and null where none lacked", () => {
  const dest = DEST_COUNTERS.create();
  expect(destCounts(dest).faults.remoteShare).toBeNull();
  dest.set(DEST.missingPages, 2048);
  dest.add(DEST.faultsRemote, 1);
  dest.add(DEST.pagesAwaited, 512);
  expect(destCounts(dest).faults.remoteShare).toBe(0.25);
  const source = SOURCE_COUNTERS.create();
  source.set(SOURCE.owedPages, 100);
  source.add(SOURCE.pagesRequested, 3);
  source.add(SOURCE.pagesRequestedZero, 2);
  expect(sourceCounts(source).requests.remoteShare).toBe(0.05);
});

test("of what another process has left, what had arrived is no work of this one", () => {
  const counters = SOURCE_COUNTERS.create();
  counters.set(SOURCE.totalPages, 1000);
  counters.set(SOURCE.phase, SOURCE_PHASES.indexOf("recover"));
  // The destination has yet to say what it has.
  expect(sourceProgress(counters, 1, true)).toMatchObject({
    arrivedPages: 0,
    remainingPages: null,
  });
  counters.set(SOURCE.owedPages, 400);
  counters.set(SOURCE.phase, SOURCE_PHASES.indexOf("postcopy"));
  counters.add(SOURCE.pagesPushed, 100);
  expect(sourceProgress(counters, 2, true)).toMatchObject({
    ...{ arrivedPages: 600, donePages: 100, remainingPages: 300 },
  });
  expect(sourceProgress(counters, 2).arrivedPages).toBe(0);
  const dest = DEST_COUNTERS.create();
  dest.set(DEST.totalPages, 1000);
  dest.set(DEST.missingPages, 400);
  dest.set(DEST.phase, DEST_PHASES.indexOf("postcopy"));
  expect(destProgress(dest, 2, true)).toMatchObject({ arrivedPages: 600, remainingPages: 400 });
  expect(destProgress(dest, 2).arrivedPages).toBe(0);
});
