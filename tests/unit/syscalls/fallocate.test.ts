import { expect, test } from "bun:test";
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { punchHole, reserveRange } from "../../../syscalls/fallocate.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const BLOCK = 512;

test("room is reserved without a change of size, and a hole gives it back", async () => {
  await using directory = new TemporaryDirectory("fallocate");
  const path = directory.file("file");
  const fd = openSync(path, "w+");
  try {
    expect(reserveRange(fd, 2 ** 19, 2 ** 19)).toBe(0);
    const { size, blocks } = fstatSync(fd);
    expect(size).toBe(0);
    expect(blocks * BLOCK).toBeGreaterThanOrEqual(2 ** 19);
    ftruncateSync(fd, 2 ** 20);
    writeSync(fd, new Uint8Array(8192).fill(7), 0, 8192, 2 ** 19);
    expect(punchHole(fd, 2 ** 19 + 4096, 2 ** 19 - 4096)).toBe(0);
    expect(fstatSync(fd).blocks * BLOCK).toBeLessThanOrEqual(8192);
    const bytes = readFileSync(path);
    expect([bytes.length, bytes[2 ** 19], bytes[2 ** 19 + 4096]]).toEqual([2 ** 20, 7, 0]);
  } finally {
    closeSync(fd);
  }
});

test("what cannot be done is a negative errno", () => {
  const fd = openSync("/dev/null", "w");
  try {
    expect(reserveRange(fd, 0, 4096)).toBe(-ERRNO.ENODEV);
    expect(punchHole(fd, 0, 0)).toBe(-ERRNO.EINVAL);
  } finally {
    closeSync(fd);
  }
});
