import { expect, test } from "bun:test";
import { startThread } from "../../helpers/test-thread.ts";
import type * as FavouredFixture from "../../fixtures/favoured.ts";
import type { Scheduling } from "../../fixtures/favoured.ts";

const FIXTURE = import.meta.resolve("../../fixtures/favoured.ts");
const start = () => startThread<typeof FavouredFixture>(FIXTURE);

/** What the kernel says of each kind: policy 0 is the usual one (sched(7)). */
const EXPECTED: Readonly<Record<Scheduling["kind"], Scheduling>> = {
  nice: { kind: "nice", policy: 0, nice: -15, own: -15 },
  usual: { kind: "usual", policy: 0, nice: 0, own: 0 },
};

test("a thread for which a guest waits is scheduled as it says, and no other thread with it", async () => {
  await using favoured = await start();
  await using other = await start();
  const scheduling = await favoured.call("beFavoured");
  expect(scheduling).toEqual(EXPECTED[scheduling.kind]);
  expect(await other.call("scheduling")).toEqual(EXPECTED.usual);
});
