import { describe, expect, test } from "bun:test";
import { startThread } from "../../helpers/test-thread.ts";
import type * as FavouredFixture from "../../fixtures/favoured.ts";
import type { Scheduling } from "../../fixtures/favoured.ts";

const FIXTURE = import.meta.resolve("../../fixtures/favoured.ts");
const start = () => startThread<typeof FavouredFixture>(FIXTURE);

/** What the kernel says of each kind: policy 0 is the usual one, 1 is SCHED_FIFO (sched(7)). */
const EXPECTED: Readonly<Record<Scheduling["kind"], Partial<Scheduling>>> = {
  "real-time": { policy: 1, priority: 1 },
  nice: { policy: 0, priority: 0, nice: -15 },
  usual: { policy: 0, priority: 0, nice: 0 },
};

/** Many times that after which a thread in real time is looked at: a host may take some away. */
const FLOOD_MS = 2000;

describe("a thread for which a guest waits", () => {
  test("is scheduled as it says, and no other thread with it", async () => {
    await using favoured = await start();
    await using other = await start();
    const scheduling = await favoured.call("beFavoured");
    expect(scheduling).toMatchObject(EXPECTED[scheduling.kind]);
    expect(await other.call("scheduling")).toMatchObject(EXPECTED.usual);
  });

  test("keeps its priority for as long as it mostly sleeps", async () => {
    await using favoured = await start();
    const before = await favoured.call("beFavoured");
    expect(await favoured.call("work", 400)).toEqual(before);
  });

  test("lends real time to one that it waits for, and takes it back", async () => {
    await using favoured = await start();
    await using holder = await start();
    const { kind } = await favoured.call("beFavoured");
    const { thread, nice } = await holder.call("self");
    const before = await holder.call("scheduling");
    expect(before.nice).toBe(nice);
    await favoured.call("lend", thread);
    // Who has none to lend leaves the other as it is.
    const lent = kind === "real-time" ? EXPECTED["real-time"] : before;
    expect(await holder.call("scheduling")).toMatchObject({ ...lent, kind: before.kind });
    await favoured.call("takeBack", thread, nice);
    expect(await holder.call("scheduling")).toEqual(before);
  });

  test("may spin most of its time away, where it hardly works beside", async () => {
    await using favoured = await start();
    const before = await favoured.call("beFavoured");
    expect(await favoured.call("workAwake", 100)).toEqual(before);
  });

  const FLOODS = { "": 0, ", however much of its time it spins away beside": 0.5 };
  for (const [beside, awake] of Object.entries(FLOODS)) {
    test(`loses real time when it is flooded${beside}, and does not get it back`, async () => {
      await using favoured = await start();
      const { kind } = await favoured.call("beFavoured");
      const flooded = await favoured.call("beFlooded", FLOOD_MS, awake);
      expect(flooded.kind).toBe(kind === "real-time" ? "nice" : kind);
      expect(flooded).toMatchObject(EXPECTED[flooded.kind]);
      expect(await favoured.call("work", 100)).toEqual(flooded);
    });
  }
});
