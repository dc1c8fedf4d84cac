import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Thread } from "../../../src/threads/thread.ts";
import { LONG_TEST_MS, waitUntil } from "../../helpers/deadline.ts";
import { FakeWorker, fakeWorkers } from "../../helpers/fake-worker.ts";

/** A thread whose worker the test plays. */
function startFake(): { thread: Thread<string, string, string>; worker: FakeWorker } {
  const thread = new Thread<string, string, string>("listen", () => undefined);
  const worker = FakeWorker.made.at(-1);
  if (worker === undefined) throw new Error("no worker was made");
  return { thread, worker };
}

async function failureOf(promise: Promise<unknown>): Promise<string> {
  return await promise.then(
    () => "none",
    (error: unknown) => String(error),
  );
}

describe("a worker that fails outside of its task", () => {
  test("is never terminated: it may sit in a system call", async () => {
    using _ = fakeWorkers();
    const { thread, worker } = startFake();
    worker.say({ kind: "ready" });
    const task = thread.run("a task");
    await waitUntil(() => worker.tasks.length > 0, "the task to be given");
    worker.onerror?.({ message: "out of luck" });
    expect(await failureOf(task)).toBe("Error: listen: out of luck");
    expect(thread.busy).toBe(true);
    thread.end();
    expect(worker.terminated).toBe(false);
    // What it was at it has ended after all.
    worker.say({ kind: "done", result: "late" });
    thread.end();
    await waitUntil(() => worker.tasks.length > 1, "the end to be told");
    expect(worker.tasks).toEqual([{ kind: "task", task: "a task" }, { kind: "end" }]);
    // It gives back what it has mapped first, which nobody else can.
    expect(worker.terminated).toBe(false);
    worker.say({ kind: "ended" });
    expect(worker.terminated).toBe(true);
  });

  test("before it was ready has no task to be at, and gets none", async () => {
    using _ = fakeWorkers();
    const { thread, worker } = startFake();
    const task = thread.run("a task");
    worker.onerror?.({ message: "no such file" });
    expect(await failureOf(task)).toBe("Error: listen: no such file");
    expect(await failureOf(thread.run("another"))).toBe("Error: listen: no such file");
    expect(worker.tasks).toEqual([]);
    expect(thread.busy).toBe(false);
    thread.end();
    await waitUntil(() => worker.terminated, "the end of the worker");
  });
});

describe("a worker that ends by itself", () => {
  test("fails its task, and every later one", async () => {
    using _ = fakeWorkers();
    const { thread, worker } = startFake();
    worker.say({ kind: "ready" });
    const task = thread.run("a task");
    await waitUntil(() => worker.tasks.length > 0, "the task to be given");
    worker.onclose?.();
    expect(await failureOf(task)).toBe("Error: the listen thread ended by itself");
    // It is at nothing any more, so what it used may be closed.
    expect(thread.busy).toBe(false);
    expect(await failureOf(thread.run("another"))).toContain("ended by itself");
    expect(worker.tasks).toEqual([{ kind: "task", task: "a task" }]);
  });

  test("says why, where an error was heard before", async () => {
    using _ = fakeWorkers();
    const { thread, worker } = startFake();
    worker.say({ kind: "ready" });
    const task = thread.run("a task");
    worker.onerror?.({ message: "out of luck" });
    worker.onclose?.();
    expect(await failureOf(task)).toBe("Error: listen: out of luck");
    expect(thread.busy).toBe(false);
  });

  test("fails nothing where it has no task", async () => {
    using _ = fakeWorkers();
    const { thread, worker } = startFake();
    worker.say({ kind: "ready" });
    const task = thread.run("a task");
    worker.say({ kind: "done", result: "well" });
    worker.onclose?.();
    expect(await failureOf(task)).toBe("none");
    expect(String(await thread.lost)).toBe("Error: the listen thread ended by itself");
  });

  test("is not lost where it was told to end", async () => {
    using _ = fakeWorkers();
    const { thread, worker } = startFake();
    worker.say({ kind: "ready" });
    thread.end();
    worker.onclose?.();
    const first = await Promise.race([thread.lost, Bun.sleep(0).then(() => "not lost")]);
    expect(first).toBe("not lost");
  });
});
test(
  "a thread that has ended leaves nothing mapped: not even its way into the kernel",
  async () => {
    const stubs = (): number => {
      return readFileSync("/proc/self/maps", "latin1").split("postcopy-syscall").length - 1;
    };
    const before = stubs();
    for (let i = 0; i < 3; i++) {
      const thread = new Thread<null, never, void>("return-path", () => {});
      expect(await failureOf(thread.run(null))).toContain("TypeError");
      thread.end();
    }
    await waitUntil(() => stubs() <= before, "the memory of the threads to be given back");
  },
  LONG_TEST_MS,
);
