import { expect, test } from "bun:test";

import { isAlive, ownProcess, processAt } from "../../../src/util/processes.ts";

test("a process is known by more than its number", () => {
  const own = ownProcess();
  expect(isAlive(own)).toBe(true);
  expect(isAlive({ ...own, startTicks: own.startTicks - 1 })).toBe(false);
  expect(isAlive({ ...own, boot: "another" })).toBe(false);
});

test("one with any name, that has ended and was not waited for, runs no more", async () => {
  // The name of a program may hold what separates the fields.
  const script = 'printf %s ") R 1 (" > /proc/$$/comm; kill -STOP $$; exit 0';
  const child = Bun.spawn(["/bin/sh", "-c", script]);
  const living = processAt(child.pid);
  expect(living?.pid).toBe(child.pid);
  expect(living?.startTicks).toBeGreaterThan(0);
  child.kill("SIGKILL");
  await child.exited;
  expect(processAt(child.pid)).toBeUndefined();
});

test("there is none that has no number", () => {
  expect(processAt(2 ** 22 + 1)).toBeUndefined();
});
