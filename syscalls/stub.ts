/**
 * A function of our own that does nothing but execute the `syscall` instruction: 26 bytes of code
 * on x86-64. Its result is the kernel's, errno included, so nothing can come between a call and its
 * errno.
 */
import { CFunction, toArrayBuffer } from "bun:ffi";
import type { Pointer } from "bun:ffi";
import { MMAN } from "./abi/mman.ts";
import { NR } from "./abi/numbers.ts";
import { SIGNATURE } from "./libc.ts";
import type { SyscallFunction } from "./libc.ts";

const CODE_BYTES = 4096;

/** mov rax,rdi; mov rdi,rsi; mov rsi,rdx; mov rdx,rcx; mov r10,r8; mov r8,r9; mov r9,[rsp+8];
 * syscall; ret: from the C calling convention, shifted by one argument, to the kernel's. */
const CODE_X64 = [
  0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x4d, 0x89, 0xc2, 0x4d,
  0x89, 0xc8, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0xc3,
];

/** mov x8,x0; mov x0,x1; mov x1,x2; mov x2,x3; mov x3,x4; mov x4,x5; mov x5,x6; svc #0; ret */
const CODE_ARM64 = [
  0xe8, 0x03, 0x00, 0xaa, 0xe0, 0x03, 0x01, 0xaa, 0xe1, 0x03, 0x02, 0xaa, 0xe2, 0x03, 0x03, 0xaa,
  0xe3, 0x03, 0x04, 0xaa, 0xe4, 0x03, 0x05, 0xaa, 0xe5, 0x03, 0x06, 0xaa, 0x01, 0x00, 0x00, 0xd4,
  0xc0, 0x03, 0x5f, 0xd6,
];

/** Name of the code's file, as /proc/PID/maps shows it. */
const FILE_NAME = "postcopy-syscall";

/** A thread's own way into the kernel, and how to give its code back; it is not called afterwards. */
export interface Stub {
  call: SyscallFunction;
  unmap: () => void;
}

/**
 * Makes the function with the help of system calls through `libc`. The code is written to a file in
 * memory (memfd_create(2)) and mapped from there: no page is ever both writable and executable.
 * Returns undefined where a policy forbids even that (SELinux, memfd_noexec, PR_SET_MDWE).
 */
export function makeStub(libc: SyscallFunction): Stub | undefined {
  const writable = MMAN.PROT_READ | MMAN.PROT_WRITE;
  const flags = MMAN.MAP_PRIVATE | MMAN.MAP_ANONYMOUS;
  const scratch = libc(NR.mmap, 0, CODE_BYTES, writable, flags, -1, 0);
  if (scratch < 0) return undefined;
  try {
    return mapCode(libc, scratch);
  } finally {
    libc(NR.munmap, scratch, CODE_BYTES, 0, 0, 0, 0);
  }
}

function mapCode(libc: SyscallFunction, scratch: number): Stub | undefined {
  // SAFETY: the caller mapped CODE_BYTES at `scratch`, and unmaps them after this returns.
  const bytes = new Uint8Array(toArrayBuffer(scratch, 0, CODE_BYTES));
  bytes.set(new TextEncoder().encode(FILE_NAME));
  const fd = libc(NR.memfd_create, scratch, MMAN.MFD_CLOEXEC, 0, 0, 0, 0);
  if (fd < 0) return undefined;
  const code = process.arch === "x64" ? CODE_X64 : CODE_ARM64;
  bytes.set(code);
  const written = libc(NR.write, fd, scratch, code.length, 0, 0, 0);
  const executable = MMAN.PROT_READ | MMAN.PROT_EXEC;
  const address =
    written === code.length
      ? libc(NR.mmap, 0, CODE_BYTES, executable, MMAN.MAP_PRIVATE, fd, 0)
      : -1;
  libc(NR.close, fd, 0, 0, 0, 0, 0);
  if (address < 0) return undefined;
  // SAFETY: the code keeps to the C calling convention that SIGNATURE describes, and the mapping,
  // which keeps its file alive, outlives the last call.
  const stub = CFunction({ ptr: address as Pointer, ...SIGNATURE });
  return {
    call: stub as unknown as SyscallFunction,
    // Through libc: the code cannot take itself away.
    unmap: () => void libc(NR.munmap, address, CODE_BYTES, 0, 0, 0, 0),
  };
}
