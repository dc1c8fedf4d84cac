/** Main's side of the thread of TLS, with a worker that the test plays. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { TlsBridge } from "../../../src/threads/tls-bridge.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { FakeWorker, fakeWorkers } from "../../helpers/fake-worker.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

function startFake(): { bridge: TlsBridge; worker: FakeWorker } {
  const bridge = new TlsBridge();
  const worker = FakeWorker.made.at(-1);
  if (worker === undefined) throw new Error("no worker was made");
  worker.say({ kind: "ready" });
  return { bridge, worker };
}

test("a thread that ended by itself is told of, and its end changes no outcome", async () => {
  using _ = fakeWorkers();
  const { bridge, worker } = startFake();
  worker.onclose?.();
  const lost = await bridge.lost;
  expect(lost).toMatchObject({ code: "THREAD_FAILED" });
  expect(String(lost.cause)).toBe("Error: the tls thread ended by itself");
  expect(await bridge.failure()).toMatchObject({ code: "THREAD_FAILED" });
  await bridge.close();
  expect(existsSync(dirname(bridge.local.path))).toBe(false);
});

test("what the thread told before it answers is known", async () => {
  using _ = fakeWorkers();
  const { bridge, worker } = startFake();
  const failure = bridge.failure();
  await waitUntil(() => worker.tasks.length > 0, "the question");
  const error = { name: "TlsError", code: "NO_TLS", message: "no TLS", exitCode: 1 };
  worker.say({ kind: "news", news: { kind: "failed", error } });
  worker.say({ kind: "done", result: undefined });
  expect(await failure).toMatchObject({ code: "NO_TLS" });
  worker.onclose?.();
  await bridge.close();
});

test("a TMPDIR that is too long for a socket in it is refused, by name", async () => {
  await using place = new TemporaryDirectory("long");
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = join(place.path, "x".repeat(100));
  try {
    expect(() => new TlsBridge()).toThrow(
      expect.objectContaining({ code: "BAD_TMPDIR", hint: expect.stringContaining("TMPDIR") }),
    );
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
});
