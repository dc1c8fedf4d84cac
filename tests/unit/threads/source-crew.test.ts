import { expect, test } from "bun:test";
import { closeSync } from "node:fs";
import { createStressSetup } from "../../../src/guests/stress/setup.ts";
import { SourceCrew } from "../../../src/threads/source-crew.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { isOpen } from "../../helpers/descriptors.ts";
import { FakeWorker, fakeWorkers } from "../../helpers/fake-worker.ts";
import { HAND_MADE_PARAMETERS } from "../../helpers/hand-made-stream.ts";
import { makeSocketPair } from "../../../syscalls/socket.ts";

const SETTINGS = {
  policy: { kind: "now" },
  maxBandwidth: 0,
  maxPostcopyBandwidth: 0,
  compression: "auto",
  preempt: false,
  pushChannels: 0,
  channelsAsked: 0,
  linkTimeoutMs: 30_000,
  downtimeLimitMs: 300,
} as const;

/** A crew of fakes whose migration is under way over `fd`; and its threads. */
async function crewAtWork(fd: number) {
  const length = HAND_MADE_PARAMETERS.size;
  const setup = createStressSetup(HAND_MADE_PARAMETERS, [{ address: 0, length }]);
  const crew = new SourceCrew({
    guest: { kind: "stress", setup, blocks: [] },
    workingSet: undefined,
    replay: new Uint32Array(),
    watch: false,
    peer: "the destination",
    waiting: () => undefined,
    connected: () => undefined,
    event: () => undefined,
  });
  const [returnPath, migration] = FakeWorker.made;
  if (migration === undefined || returnPath === undefined) throw new Error("no threads");
  for (const worker of FakeWorker.made) worker.say({ kind: "ready" });
  const running = crew.run({ kind: "descriptor", fd }, SETTINGS, null);
  await waitUntil(() => migration.tasks.length > 0, "a task for the migration thread");
  migration.say({ kind: "news", news: { kind: "connected", fd } });
  await waitUntil(() => returnPath.tasks.length > 0, "a task for the return path's thread");
  return { crew, returnPath, migration, running };
}

test("a thread that pushes and ends by itself is why the migration failed, for good", async () => {
  using _ = fakeWorkers();
  const [fd, other] = makeSocketPair();
  const [pushFd, pushOther] = makeSocketPair();
  const { crew, returnPath, migration, running } = await crewAtWork(fd);
  migration.say({ kind: "news", news: { kind: "push channel", fd: pushFd } });
  const [, , push] = FakeWorker.made;
  push?.say({ kind: "ready" });
  await waitUntil(() => push?.tasks.length === 1, "a task for the thread that pushes");
  push?.onclose?.();
  const error = { name: "Error", code: "X", message: "The migration failed", exitCode: 1 };
  const place = "destination";
  migration.say({ kind: "done", result: { ok: false, place, paused: true, error } });
  returnPath.say({ kind: "done" });
  const cause = { message: "the push thread ended by itself" };
  const failed = { message: "The migration failed", cause };
  expect(await running).toMatchObject({ ok: false, place, paused: false, error: failed });
  crew.end();
  expect([fd, pushFd].map(isOpen)).toEqual([false, false]);
  for (const each of [other, pushOther]) closeSync(each);
});

test("the link stays open under a thread that may still be at work with it", async () => {
  using _ = fakeWorkers();
  const [fd, other] = makeSocketPair();
  const { crew, returnPath, migration, running } = await crewAtWork(fd);
  migration.say({ kind: "done", result: { ok: true, outcome: {} } });
  crew.end();
  expect(isOpen(fd)).toBe(true);
  returnPath.say({ kind: "done" });
  await running;
  crew.end();
  expect(isOpen(fd)).toBe(false);
  closeSync(other);
});
