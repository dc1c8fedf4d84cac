/**
 * Processes that live on: a guest goes round in a ring of three, again with the garbage collector
 * at work all the time in every thread. It stays whole, and nothing is left behind.
 */
import { expect } from "bun:test";

import { waitUntil } from "../helpers/deadline.ts";
import { pages } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { isFlat, Ring } from "../helpers/ring.ts";
import type { Hop } from "../helpers/ring.ts";

const ringTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const GUEST = "stress:size=16MiB,workers=2,zero=0,discard=0.01";

/** One more than the ring has members, so that the next guest begins at another one. */
const HOPS: readonly Hop[] = [
  { switchover: { kind: "now" } },
  { switchover: { kind: "rounds", rounds: 1 } },
  { switchover: { kind: "auto" } },
  { switchover: { kind: "now" } },
];

/** Less than one guest, more than what a heap grows by in a few seconds. */
const GROWTH_KIB_MAX = 10 * 1024;

/** Sends a guest around, and has it audited where it ends. */
async function sendAround(ring: Ring, hops: readonly Hop[]): Promise<void> {
  await ring.create(GUEST);
  for (const hop of hops) await ring.move(hop);
  expect(await ring.audit()).toMatchObject({ pagesChecked: COUNT, pagesWrong: 0 });
}

ringTest("a guest in a ring of three processes is whole, and leaves nothing behind", async () => {
  await using ring = await Ring.start(3);
  await sendAround(ring, HOPS);
  const before = await ring.figures();
  await sendAround(ring, HOPS.slice(0, 3));
  await sendAround(ring, HOPS.slice(1));
  // A thread that was told to end takes a moment.
  const settled = async (): Promise<boolean> => isFlat(await ring.figures(), before);
  await waitUntil(settled, "as many descriptors and threads as there were before");
  for (const [member, { residentKib }] of (await ring.figures()).entries()) {
    expect(residentKib - (before[member]?.residentKib ?? 0)).toBeLessThan(GROWTH_KIB_MAX);
  }
});

/** JavaScriptCore's own switches: collect all the time, and overwrite what is found to be free. */
const COLLECTING = {
  BUN_JSC_slowPathAllocsBetweenGCs: "100",
  BUN_JSC_collectContinuously: "1",
  BUN_JSC_scribbleFreeCells: "1",
  BUN_JSC_logGC: "1",
};
/** A destination has these threads at the same time: main, incoming, listen, fault, and the guest's. */
const HEAPS_MIN = 6;
const COLLECTIONS_MIN = 200;

ringTest("garbage collected all the time, in every thread: the guest is whole", async () => {
  await using ring = await Ring.start(2, { environment: COLLECTING });
  await sendAround(ring, HOPS.slice(0, 2));
  for (const text of ring.errors) {
    const collections = [...text.matchAll(/\[GC<(0x[0-9a-f]+)>: START M/g)];
    expect(new Set(collections.map(([, heap]) => heap)).size).toBeGreaterThanOrEqual(HEAPS_MIN);
    expect(collections.length).toBeGreaterThan(COLLECTIONS_MIN);
  }
});
