import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, statfsSync } from "node:fs";
import { Reservation } from "../../../src/guests/snapshot/reservation.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** A regular file of a file system that cannot reserve room: EOPNOTSUPP. */
const UNRESERVABLE = "/proc/self/comm";

describe("where no room can be reserved", () => {
  let fd: number;

  beforeAll(() => {
    fd = openSync(UNRESERVABLE, "r+");
  });

  afterAll(() => {
    closeSync(fd);
  });

  test("all that is needed must have been free at first", async () => {
    await using directory = new TemporaryDirectory("reserve");
    const { bavail, bsize } = statfsSync(directory.path);
    const reservation = new Reservation(directory.path);
    const reserve = (needed: number): void => {
      reservation.reserve(fd, "ram-0.bin", 0, 4096, needed);
    };
    // Others use the same disk, so nothing here is exact.
    const most = Math.floor(0.6 * bavail * bsize);
    reserve(most);
    expect(() => reserve(most)).toThrow(
      `There is no space left for the snapshot in ${directory.path}`,
    );
  });

  test("a file system that does not count is trusted", () => {
    expect(statfsSync("/proc").blocks).toBe(0);
    new Reservation("/proc").reserve(fd, "ram-0.bin", 0, 4096, 2 ** 50);
  });
});

test("other failures have their name", () => {
  const fd = openSync("/dev/null", "r+");
  try {
    const reservation = new Reservation("/dev");
    expect(() => reservation.reserve(fd, "null", 0, 4096, 4096)).toThrow(
      "null cannot be stored in /dev",
    );
  } finally {
    closeSync(fd);
  }
});
