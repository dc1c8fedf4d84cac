import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { monotonicNs, processCpuNs, threadId } from "../../../syscalls/process.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { spawn } from "../../helpers/spawn.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as NicenessFixture from "../../fixtures/niceness.ts";

describe("the monotonic clock", () => {
  test("never goes back, and is the one that other processes see", () => {
    let last = 0;
    for (let i = 0; i < 1000; i++) {
      const now = monotonicNs();
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
    }
    const uptimeNs = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1e9;
    expect(Math.abs(monotonicNs() - uptimeNs)).toBeLessThan(5e9);
  });

  test("counts nanoseconds", () => {
    const [clock, steady] = [monotonicNs(), performance.now()];
    while (performance.now() - steady < 20);
    const ratio = (monotonicNs() - clock) / 1e6 / (performance.now() - steady);
    expect(ratio).toBeGreaterThan(0.9);
    expect(ratio).toBeLessThan(1.1);
  });
});

describe("the CPU time of a process", () => {
  test("is user and system time together, of this process and of another", async () => {
    const before = process.cpuUsage();
    const ns = processCpuNs(process.pid);
    const after = process.cpuUsage();
    // The kernel rounds the times of getrusage(2), each by itself.
    expect(ns / 1000).toBeGreaterThanOrEqual(before.user + before.system - 20_000);
    expect(ns / 1000).toBeLessThanOrEqual(after.user + after.system + 20_000);

    await using child = spawn(["sh", "-c", "read line; while :; do :; done"]);
    const idle = processCpuNs(child.pid);
    child.writeLine("go");
    await waitUntil(() => processCpuNs(child.pid) > idle + 50e6, "50 ms of CPU time");
  });

  test("cannot be had of a process that is not there", () => {
    expect(() => processCpuNs(2 ** 22 + 1)).toThrow(
      "clock_gettime(CPU time of pid 4194305) failed",
    );
  });
});

test("the first thread of a process has its number", () => {
  expect(threadId()).toBe(process.pid);
});

test("a nice value is given to the calling thread alone", async () => {
  const fixture = import.meta.resolve("../../fixtures/niceness.ts");
  await using nice = await startThread<typeof NicenessFixture>(fixture);
  await using other = await startThread<typeof NicenessFixture>(fixture);
  const before = await other.call("niceness");
  expect(await nice.call("setNice", 7)).toBe(true);
  expect(await nice.call("niceness")).toBe(7);
  expect(await other.call("niceness")).toBe(before);
});
