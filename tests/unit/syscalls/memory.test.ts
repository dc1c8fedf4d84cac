import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import {
  discardPages,
  getI64,
  getU64,
  mapAnonymous,
  mapScratch,
  mlock,
  mlockall,
  munlock,
  munlockall,
  putU64,
  scratchAt,
  viewMemory,
  WINDOW_BYTES_MAX,
} from "../../../syscalls/memory.ts";
import type { Scratch } from "../../../syscalls/memory.ts";
import type * as ScratchThread from "../../fixtures/scratch.ts";
import { startThread } from "../../helpers/test-thread.ts";

const GIBIBYTE = 2 ** 30;

/** Whether the process has a mapping around `address`. */
function isMapped(address: number): boolean {
  const lines = readFileSync("/proc/self/maps", "utf8").split("\n");
  return lines.some((line) => {
    const [, start = "", end = ""] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line) ?? [];
    return address >= Number.parseInt(start, 16) && address < Number.parseInt(end, 16);
  });
}

/** A field of /proc/self/status in KiB. */
function statusKibibytes(field: string): number {
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
}

describe("u64 fields", () => {
  const view = new DataView(new ArrayBuffer(24));

  test("hold every safe integer, little-endian", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.nat({ max: 16 }), (value, at) => {
        putU64(view, at, value);
        expect(view.getBigUint64(at, true)).toBe(BigInt(value));
        expect(getU64(view, at)).toBe(value);
      }),
    );
  });

  test("are signed where a kernel result is", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (value) => {
        view.setBigInt64(0, BigInt(value), true);
        expect(getI64(view, 0)).toBe(value);
      }),
    );
  });
});

describe("anonymous memory", () => {
  test("is zero, holds what is written, and is zero again once discarded", () => {
    using mapping = mapAnonymous(4 * 4096);
    const bytes = new Uint8Array(viewMemory(mapping.address, mapping.length));
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    bytes.fill(0xa5);
    discardPages(mapping.address + 4096, 2 * 4096);
    const firsts = [0, 1, 2, 3].map((page) => bytes[page * 4096 + 17]);
    expect(firsts).toEqual([0xa5, 0, 0, 0xa5]);
  });

  test("is unmapped at the end of its life, once", () => {
    const mapping = mapAnonymous(4096);
    expect(isMapped(mapping.address)).toBe(true);
    mapping[Symbol.dispose]();
    expect(isMapped(mapping.address)).toBe(false);
    expect(() => mapping[Symbol.dispose]()).not.toThrow();
  });

  test("costs nothing until it is touched, and its windows show all of it", () => {
    const length = 3 * GIBIBYTE;
    using mapping = mapAnonymous(length);
    const before = statusKibibytes("VmRSS");
    const windows = [0, 1, 2].map(
      (n) => new Uint8Array(viewMemory(mapping.address + n * WINDOW_BYTES_MAX, WINDOW_BYTES_MAX)),
    );
    windows.forEach((window, n) => {
      window[0] = 10 + n;
      window[window.length - 1] = 20 + n;
    });
    const at = (offset: number): number => scratchAt(mapping.address + offset, 1).view.getUint8(0);
    const edges = [0, 1, 2].map((n) => [at(n * GIBIBYTE), at((n + 1) * GIBIBYTE - 1)]);
    expect(edges).toEqual([
      [10, 20],
      [11, 21],
      [12, 22],
    ]);
    expect(statusKibibytes("VmRSS") - before).toBeLessThan(100 * 1024);
  });

  test("that cannot be had is refused with the size in the error", () => {
    expect(() => mapAnonymous(2 ** 47)).toThrow(
      "mmap(140737488355328 bytes of anonymous memory, page size 4096) failed: ENOMEM",
    );
  });

  test("is locked and unlocked", () => {
    using mapping = mapAnonymous(64 * 4096);
    const before = statusKibibytes("VmLck");
    mlock(mapping.address, mapping.length);
    expect(statusKibibytes("VmLck") - before).toBe(256);
    munlock(mapping.address, 32 * 4096);
    expect(statusKibibytes("VmLck") - before).toBe(128);
    munlock(mapping.address, mapping.length);
    expect(statusKibibytes("VmLck")).toBe(before);
  });

  test("of the whole process is locked without being populated", () => {
    using mapping = mapAnonymous(GIBIBYTE);
    const before = statusKibibytes("VmRSS");
    try {
      mlockall();
      expect(statusKibibytes("VmLck")).toBeGreaterThan(GIBIBYTE / 1024 - 1);
      expect(statusKibibytes("VmRSS") - before).toBeLessThan(512 * 1024);
    } finally {
      munlockall();
    }
    expect(statusKibibytes("VmLck")).toBe(0);
    expect(mapping.length).toBe(GIBIBYTE);
  });
});

test("scratch memory stays where it is and keeps its bytes through garbage collections", () => {
  const made: { scratch: Scratch; address: number; mark: number }[] = [];
  for (let round = 0; round < 20; round++) {
    for (let n = 0; n < 25; n++) {
      const scratch = mapScratch(1 + n * 40);
      const mark = round * 25 + n;
      scratch.view.setUint32(0, mark, true);
      made.push({ scratch, address: scratch.address, mark });
      // Garbage of the size at which the engine moves typed arrays about.
      new Uint8Array(1 + n * 40).fill(0xff);
    }
    Bun.gc(true);
    for (const { scratch, address, mark } of made) {
      expect(scratch.address).toBe(address);
      expect(scratchAt(address, 4).view.getUint32(0, true)).toBe(mark);
      expect(scratch.bytes.buffer.byteLength % 4096).toBe(0);
    }
  }
});

test("scratch memory is given back by the thread that mapped it", async () => {
  const address = import.meta.resolve("../../fixtures/scratch.ts");
  await using thread = await startThread<typeof ScratchThread>(address);
  const kept = mapScratch(4096).address;
  // Behind small pieces a large one, at whose start nothing else will soon be mapped.
  const [, , large = 0] = await thread.call("mapSome", [1, 4096, GIBIBYTE]);
  expect(isMapped(large)).toBe(true);
  await thread.call("giveBack");
  expect(isMapped(large)).toBe(false);
  expect(isMapped(kept)).toBe(true);
});
