import { describe, expect, test } from "bun:test";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { FCNTL } from "../../../syscalls/abi/file.ts";
import { MMAN } from "../../../syscalls/abi/mman.ts";
import { SYSCALLS_X64, SYSCALLS_ARM64 } from "../../../syscalls/abi/numbers.ts";
import { openLibc } from "../../../syscalls/libc.ts";
import type { SyscallFunction } from "../../../syscalls/libc.ts";
import { mapScratch, scratchAt } from "../../../syscalls/memory.ts";
import { bufferAt, NR, syscall, VIEW_BYTES_MAX } from "../../../syscalls/raw.ts";
import { makeStub } from "../../../syscalls/stub.ts";

const libc = openLibc();

function stubOrFail(): SyscallFunction {
  const stub = makeStub(libc);
  if (stub === undefined) throw new Error("this host forbids the stub");
  return stub.call;
}

const path = mapScratch(16);
path.bytes.set(new TextEncoder().encode("/no/such"));

const ANONYMOUS = MMAN.MAP_PRIVATE | MMAN.MAP_ANONYMOUS;

/** Calls whose result is the same each time, and which leave nothing behind. */
const CALLS: [what: string, number: number, expected: number | undefined, ...values: number[]][] = [
  ["a result", NR.gettid, undefined],
  ["an errno without arguments", NR.close, -ERRNO.EBADF, -1],
  ["an errno of the second argument", NR.openat, -ERRNO.ENOENT, FCNTL.AT_FDCWD, path.address],
  ["an errno of a bad address", NR.openat, -ERRNO.EFAULT, FCNTL.AT_FDCWD, 16],
  ["more memory than there is", NR.mmap, -ERRNO.ENOMEM, 0, 2 ** 47, 0, ANONYMOUS, -1, 0],
  ["the sixth argument", NR.mmap, -ERRNO.EINVAL, 0, 4096, 0, ANONYMOUS, -1, 1],
  ["the fifth argument", NR.mmap, -ERRNO.EBADF, 0, 4096, 0, MMAN.MAP_PRIVATE, 1_000_000, 0],
  ["an unknown call", 100_000, -ERRNO.ENOSYS],
];

describe("the stub and libc give the same for", () => {
  const stub = stubOrFail();
  test.each(CALLS)("%s", (_what, number, expected, ...values) => {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = values;
    const results = [stub, libc, syscall].map((call) => call(number, a, b, c, d, e, f));
    expect(results).toEqual(Array(3).fill(expected ?? process.pid));
  });

  test("addresses above 4 GiB, and memory that the other one mapped", () => {
    const protection = MMAN.PROT_READ | MMAN.PROT_WRITE;
    for (const [maps, unmaps] of [
      [stub, libc],
      [libc, stub],
    ] as const) {
      const address = maps(NR.mmap, 0, 4096, protection, ANONYMOUS, -1, 0);
      expect(address).toBeGreaterThan(2 ** 32);
      scratchAt(address, 4096).bytes[4095] = 7;
      expect(unmaps(NR.munmap, address, 4096, 0, 0, 0, 0)).toBe(0);
    }
  });
});

test("libc's errno is the one of the call just made, whatever was allocated since", () => {
  for (let i = 0; i < 2000; i++) {
    expect(libc(NR.close, -1, 0, 0, 0, 0, 0)).toBe(-ERRNO.EBADF);
    expect(libc(NR.openat, FCNTL.AT_FDCWD, path.address, 0, 0, 0, 0)).toBe(-ERRNO.ENOENT);
    if (i % 200 === 0) Bun.gc(true);
  }
});

test("where code may not be written at run time there is no stub, and nothing is left mapped", () => {
  const calls: number[] = [];
  const strict: SyscallFunction = (number, a, b, c, d, e, f) => {
    calls.push(number);
    return number === NR.mmap && e >= 0 ? -ERRNO.EACCES : libc(number, a, b, c, d, e, f);
  };
  expect(makeStub(strict)).toBeUndefined();
  expect(calls).toEqual([NR.mmap, NR.memfd_create, NR.write, NR.mmap, NR.close, NR.munmap]);
  expect(makeStub(() => -ERRNO.ENOMEM)).toBeUndefined();
});

test("both architectures have a number for the same calls", () => {
  expect(Object.keys(SYSCALLS_ARM64).toSorted()).toEqual(Object.keys(SYSCALLS_X64).toSorted());
  expect(NR).toEqual(process.arch === "x64" ? SYSCALLS_X64 : SYSCALLS_ARM64);
});

test("a view longer than the limit is refused", () => {
  expect(() => bufferAt(path.address, VIEW_BYTES_MAX + 1)).toThrow(RangeError);
});
