import { describe, expect, test } from "bun:test";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { check, SyscallError } from "../../../syscalls/error.ts";
import { bindAndListen, makeSocket } from "../../../syscalls/socket.ts";

/** What `action` throws, which must be a SyscallError. */
function failureOf(action: () => unknown): SyscallError {
  try {
    action();
  } catch (error) {
    if (error instanceof SyscallError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}

describe("a failed system call", () => {
  test("says which call, which errno and which arguments", () => {
    const failure = failureOf(() => closeDescriptor(1_000_000));
    expect(failure.name).toBe("SyscallError");
    expect(failure.syscall).toBe("close");
    expect(failure.errno).toBe(ERRNO.EBADF);
    expect(failure.code).toBe("EBADF");
    expect(failure.message).toBe("close(fd 1000000) failed: EBADF, bad file descriptor");
  });

  test("is explained in a sentence where people are likely to meet it", () => {
    const fd = makeSocket("inet");
    try {
      // TEST-NET-1 of RFC 5737 belongs to no host.
      const address = { family: "inet", host: "192.0.2.1", port: 0 } as const;
      const failure = failureOf(() => bindAndListen(fd, address, 1));
      expect(failure.message).toBe(
        "bind(192.0.2.1:0) failed: EADDRNOTAVAIL, address not available on this host",
      );
    } finally {
      closeDescriptor(fd);
    }
  });

  test("has a code even if this program does not know its number", () => {
    const failure = failureOf(() => check("ioctl", -200, "fd 3"));
    expect(failure.code).toBe("errno 200");
    expect(failure.message).toBe("ioctl(fd 3) failed: errno 200, error number 200");
  });
});

test("what did not fail passes through", () => {
  expect(check("read", 0)).toBe(0);
  expect(check("mmap", 0x7fff_ffff_f000)).toBe(0x7fff_ffff_f000);
});
