import { expect, test } from "bun:test";
import { ftruncateSync, readSync, writeSync } from "node:fs";
import { growMemoryFile, makeMemoryFile, mapFile, sealedLength } from "../../../syscalls/memfd.ts";
import { viewMemory } from "../../../syscalls/memory.ts";
import { Descriptors } from "../../helpers/descriptors.ts";

const LENGTH = 8192;

test("what is written into the mapping is in the file, and the other way round", () => {
  using descriptors = new Descriptors();
  const fd = descriptors.add(makeMemoryFile("test", LENGTH));
  using mapping = mapFile(fd, LENGTH);
  using again = mapFile(fd, LENGTH);
  const bytes = new Uint8Array(viewMemory(mapping.address, LENGTH));
  expect(bytes.every((byte) => byte === 0)).toBe(true);
  bytes[5000] = 7;
  const read = new Uint8Array(1);
  readSync(fd, read, 0, 1, 5000);
  expect(read[0]).toBe(7);
  writeSync(fd, Uint8Array.of(9), 0, 1, 1);
  expect(bytes[1]).toBe(9);
  expect(new Uint8Array(viewMemory(again.address, LENGTH))[5000]).toBe(7);
});

test("nobody makes it shorter, and of any other file that is not promised", () => {
  using descriptors = new Descriptors();
  const fd = descriptors.add(makeMemoryFile("test", LENGTH));
  expect(() => ftruncateSync(fd, 0)).toThrow("EPERM");
  growMemoryFile(fd, 4096);
  expect(sealedLength(fd)).toBe(LENGTH);
  growMemoryFile(fd, 2 * LENGTH);
  expect(sealedLength(fd)).toBe(2 * LENGTH);
  using second = mapFile(fd, LENGTH, LENGTH);
  new Uint8Array(viewMemory(second.address, LENGTH))[1] = 3;
  const read = new Uint8Array(1);
  readSync(fd, read, 0, 1, LENGTH + 1);
  expect(read[0]).toBe(3);
  expect(sealedLength(descriptors.event())).toBeUndefined();
});
