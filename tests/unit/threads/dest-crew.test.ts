import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { DestCrew } from "../../../src/threads/dest-crew.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { isOpen } from "../../helpers/descriptors.ts";
import { FakeWorker, fakeWorkers } from "../../helpers/fake-worker.ts";

const OUT_OF_LUCK = { name: "Error", code: "X", message: "out of luck", exitCode: 1 };

/** A crew of fakes that waits on a socket of its own; its incoming thread fails with `fail`. */
async function failedCrew(fail: (incoming: FakeWorker) => void) {
  const { fd } = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
  const crew = new DestCrew({
    guest: { kind: "stress", expected: undefined },
    arrival: { kind: "listen", allow: [], fd },
    lockMemory: false,
    pushChannels: 0,
    recoverTimeoutMs: Infinity,
    linkTimeoutMs: 30_000,
    connected: () => undefined,
    event: () => undefined,
  });
  for (const worker of FakeWorker.made) worker.say({ kind: "ready" });
  const running = crew.run();
  const atWork = (): FakeWorker | undefined =>
    FakeWorker.made.find((worker) => worker.tasks.length > 0);
  fail(await waitUntil(atWork, "a task for the incoming thread"));
  await expect(running).rejects.toThrow("out of luck");
  crew.end();
  return fd;
}

/** How many threads were told to end. */
async function toldToEnd(): Promise<number> {
  // They are told as soon as they are known to be ready.
  await Bun.sleep(0);
  const end = { kind: "end" };
  return FakeWorker.made.filter(({ tasks }) => tasks.some((task) => Bun.deepEquals(task, end)))
    .length;
}

test("connections that the incoming thread has closed are not closed once more", async () => {
  using _ = fakeWorkers();
  const mine = openSync("/dev/null", "r");
  await failedCrew((incoming) => {
    const connected = { kind: "connected", fd: -1, others: [mine], peer: "somebody" };
    for (const news of [connected, { kind: "turnedAway" }]) incoming.say({ kind: "news", news });
    incoming.say({ kind: "failed", error: OUT_OF_LUCK });
  });
  // Its number may be another file's by then, as it is here.
  expect(isOpen(mine)).toBe(true);
  closeSync(mine);
});

test("a descriptor that is closed already leaves no other one open", async () => {
  using _ = fakeWorkers();
  const [gone, other] = [openSync("/dev/null", "r"), openSync("/dev/null", "r")];
  closeSync(gone);
  const failed = failedCrew((incoming) => {
    const news = { kind: "connected", fd: -1, others: [gone, other], peer: "somebody" };
    incoming.say({ kind: "news", news });
    incoming.say({ kind: "failed", error: OUT_OF_LUCK });
  });
  await expect(failed).rejects.toThrow("close");
  expect(isOpen(other)).toBe(false);
});

describe("the listening socket", () => {
  test("is closed with the crew", async () => {
    using _ = fakeWorkers();
    const fd = await failedCrew((incoming) => {
      incoming.say({ kind: "failed", error: OUT_OF_LUCK });
    });
    expect(isOpen(fd)).toBe(false);
    expect(await toldToEnd()).toBe(FakeWorker.made.length);
  });

  test("stays open under a thread that may still be at work with it", async () => {
    using _ = fakeWorkers();
    const fd = await failedCrew((incoming) => incoming.onerror?.({ message: "out of luck" }));
    expect(isOpen(fd)).toBe(true);
    // What they have mapped is the other's to work with.
    expect(await toldToEnd()).toBe(0);
    closeDescriptor(fd);
  });
});
