/** When a guest that was sent is told to go on, by what its QEMU says of itself. */
import { expect, test } from "bun:test";
import { letRun } from "../../../src/guests/qemu/keep.ts";
import { QmpClient } from "../../../src/qmp/client.ts";
import { FakeMonitor } from "../../helpers/fake-monitor.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** What is said to a QEMU that has these run states, one after the other. */
async function toldTo(states: readonly string[]): Promise<string[]> {
  await using directory = new TemporaryDirectory("keep");
  const left = [...states];
  using monitor = new FakeMonitor(directory.file("qmp"), ({ command, id }) => {
    if (command !== "query-status") return [{ return: {}, id }];
    const status = left.shift() ?? "running";
    return [{ return: { status, running: status === "running" }, id }];
  });
  const qmp = await QmpClient.connect(directory.file("qmp"));
  try {
    await letRun(qmp);
  } finally {
    qmp.close();
  }
  return monitor.requests.map(({ command }) => command);
}

const LOOK = "query-status";

test("a guest is told once, and then waited for", async () => {
  expect(await toldTo(["postmigrate", "paused"])).toEqual([LOOK, "cont", LOOK, LOOK]);
});

test("a migration that is not finalized is waited for: QEMU would refuse", async () => {
  const states = ["finish-migrate", "finish-migrate", "postmigrate"];
  expect(await toldTo(states)).toEqual([LOOK, LOOK, LOOK, "cont", LOOK]);
});

test("a guest that runs is told nothing", async () => {
  expect(await toldTo(["running"])).toEqual([LOOK]);
});
