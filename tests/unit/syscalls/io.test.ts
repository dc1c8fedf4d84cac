import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { closeSync, openSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { SOCKET } from "../../../syscalls/abi/socket.ts";
import { closeDescriptor, setNonBlocking } from "../../../syscalls/descriptor.ts";
import { GatherList, IOVEC_COUNT_MAX, readInto, writeAt, writeFrom } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { makeSocketPair } from "../../../syscalls/socket.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const SOURCE_BYTES = 1 << 20;
const source = mapScratch(SOURCE_BYTES);
for (let i = 0; i < SOURCE_BYTES; i++) source.bytes[i] = (i * 31 + (i >>> 8)) & 0xff;
const received = mapScratch(64 * 1024);

/** The least send buffer that the kernel gives a socket: a few KiB. */
function shrinkSendBuffer(fd: number): void {
  const option = mapScratch(4);
  option.view.setInt32(0, 1, true);
  const { SOL_SOCKET, SO_SNDBUF } = SOCKET;
  expect(syscall(NR.setsockopt, fd, SOL_SOCKET, SO_SNDBUF, option.address, 4)).toBe(0);
}

let writer: number;
let reader: number;

beforeEach(() => {
  [writer, reader] = makeSocketPair();
  shrinkSendBuffer(writer);
  setNonBlocking(writer, true);
  setNonBlocking(reader, true);
});

afterEach(() => {
  closeDescriptor(writer);
  closeDescriptor(reader);
});

/** Takes at most `most` bytes from the reader's end and appends them. */
function drain(into: number[], most: number): void {
  const got = readInto(reader, received.address, Math.min(most, received.bytes.length));
  if (got > 0) into.push(...received.bytes.subarray(0, got));
}

interface Piece {
  at: number;
  length: number;
}

/** Writes pieces through a full socket, reading `step` bytes now and then; how many writes it took. */
function pump(list: GatherList, pieces: readonly Piece[], step: number): number {
  const arrived: number[] = [];
  const expected = pieces.flatMap(({ at, length }) => [...source.bytes.subarray(at, at + length)]);
  list.clear();
  for (const { at, length } of pieces) list.add(source.address + at, length);
  expect(list.remaining).toBe(expected.length);
  let writes = 0;
  while (list.remaining > 0) {
    const before = list.remaining;
    const result = list.write(writer);
    if (result === -ERRNO.EAGAIN) drain(arrived, step);
    else {
      expect(list.remaining).toBe(before - result);
      writes++;
    }
  }
  while (arrived.length < expected.length) drain(arrived, SOURCE_BYTES);
  expect(Buffer.from(arrived).equals(Buffer.from(expected))).toBe(true);
  return writes;
}

describe("a gather list", () => {
  test("goes on where a full socket stopped it, in the middle of a piece", () => {
    const writes = pump(new GatherList(2), [{ at: 5, length: 100_000 }], 777);
    expect(writes).toBeGreaterThan(3);
  });

  test("sends any pieces in their order, byte for byte", () => {
    const list = new GatherList(16);
    const piece = fc.record({
      at: fc.nat({ max: SOURCE_BYTES - 10_000 }),
      length: fc.oneof(fc.nat({ max: 5 }), fc.nat({ max: 10_000 })),
    });
    const pieces = fc.array(piece, { minLength: 1, maxLength: 16 });
    fc.assert(
      fc.property(pieces, fc.integer({ min: 1, max: 9000 }), (all, step) => {
        pump(list, all, step);
      }),
      { numRuns: 60 },
    );
  });

  test("takes as many pieces as writev(2), and not one more", () => {
    const list = new GatherList(IOVEC_COUNT_MAX);
    const pieces = Array.from({ length: IOVEC_COUNT_MAX }, (_, i) => ({ at: i * 7, length: 7 }));
    pump(list, pieces, 4096);
    expect(list.room).toBe(0);
    expect(() => list.add(source.address, 1)).toThrow("the gather list is full");
    list.clear();
    expect(list.room).toBe(IOVEC_COUNT_MAX);
    expect(() => new GatherList(IOVEC_COUNT_MAX + 1)).toThrow(RangeError);
  });

  test("is as long as it was made, even where its memory has room for more", () => {
    const list = new GatherList(1);
    list.add(source.address, 1);
    expect(() => list.add(source.address, 1)).toThrow("the gather list is full");
  });

  test("can be cleared half-way and holds nothing of the old then", () => {
    const list = new GatherList(4);
    list.add(source.address, 50_000);
    expect(list.write(writer)).toBeGreaterThan(0);
    while (readInto(reader, received.address, received.bytes.length) > 0);
    pump(list, [{ at: 9, length: 10 }], 10);
  });

  test("gives the errno of a peer that is gone", () => {
    const [a, b] = makeSocketPair();
    closeDescriptor(b);
    const list = new GatherList(1);
    list.add(source.address, 10);
    expect(list.write(a)).toBe(-ERRNO.EPIPE);
    expect(list.remaining).toBe(10);
    closeDescriptor(a);
  });
});

describe("pieces of a file", () => {
  test("go to where they belong in one call, and come back into other pieces", async () => {
    await using directory = new TemporaryDirectory("io");
    const fd = openSync(directory.file("pieces"), "w+");
    try {
      const offset = 5 * 2 ** 30 + 3;
      const list = new GatherList(8);
      for (const at of [9000, 100, 500]) list.add(source.address + at, 70);
      expect([list.writeAt(fd, offset), list.remaining]).toEqual([210, 0]);
      list.clear();
      received.bytes.fill(0);
      for (const at of [0, 200]) list.add(received.address + at, 105);
      expect([list.readAt(fd, offset), list.remaining]).toEqual([210, 0]);
      const expected = [9000, 100, 500].flatMap((at) => [...source.bytes.subarray(at, at + 70)]);
      const back = [0, 200].flatMap((at) => [...received.bytes.subarray(at, at + 105)]);
      expect(back).toEqual(expected);
      // A call that is short leaves the rest.
      list.clear();
      for (const at of [0, 200]) list.add(received.address + at, 105);
      expect([list.readAt(fd, offset + 50), list.remaining]).toEqual([160, 50]);
      expect(list.readAt(fd, offset + 210)).toBe(0);
      expect([list.readAt(-1, 0), list.writeAt(-1, 0)]).toEqual([-ERRNO.EBADF, -ERRNO.EBADF]);
    } finally {
      closeSync(fd);
    }
  });
});

describe("read and write", () => {
  test("give counts, the end, and errnos as numbers", () => {
    expect(readInto(reader, received.address, 10)).toBe(-ERRNO.EAGAIN);
    expect(writeFrom(writer, source.address, 10)).toBe(10);
    expect(readInto(reader, received.address, 4)).toBe(4);
    expect(readInto(reader, received.address, 100)).toBe(6);
    expect(readInto(reader, 16, 100)).toBe(-ERRNO.EAGAIN);
    writeFrom(writer, source.address, 1);
    expect(readInto(reader, 16, 100)).toBe(-ERRNO.EFAULT);
    expect(readInto(-1, received.address, 1)).toBe(-ERRNO.EBADF);
  });

  test("reach an offset of a file beyond 4 GiB", async () => {
    await using directory = new TemporaryDirectory("io");
    const path = directory.file("sparse");
    const fd = openSync(path, "w+");
    try {
      const offset = 5 * 2 ** 30 + 3;
      expect(writeAt(fd, source.address + 100, 50, offset)).toBe(50);
      const slice = Bun.file(path).slice(offset, offset + 50);
      expect(new Uint8Array(await slice.arrayBuffer())).toEqual(source.bytes.slice(100, 150));
      expect(Bun.file(path).size).toBe(offset + 50);
    } finally {
      closeSync(fd);
    }
    const readOnly = openSync(path, "r");
    expect(writeAt(readOnly, source.address, 1, 0)).toBe(-ERRNO.EBADF);
    closeSync(readOnly);
  });
});
