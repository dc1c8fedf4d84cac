import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { tryLock } from "../../../syscalls/flock.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

test("one opening of a directory has the lock, until it is closed", async () => {
  await using directory = new TemporaryDirectory("flock");
  const [first, second] = [openSync(directory.path, "r"), openSync(directory.path, "r")];
  try {
    expect([tryLock(first), tryLock(second), tryLock(first)]).toEqual([true, false, true]);
    closeSync(first);
    expect(tryLock(second)).toBe(true);
  } finally {
    closeSync(second);
  }
});

test("what is not open cannot be locked", () => {
  expect(() => tryLock(-1)).toThrow("flock(fd -1, LOCK_EX|LOCK_NB) failed: EBADF");
});
