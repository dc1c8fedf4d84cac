/**
 * System calls with nothing in between: numbers in, result or negative errno out.
 *
 * Bun's FFI cannot read errno reliably after a libc call (another call may run in between), so a
 * 26-byte function that executes the `syscall` instruction is written into a page of its own, which
 * is then made executable and read-only. Where a policy forbids that (SELinux execmem), libc's
 * syscall(2) and __errno_location serve instead.
 */
import { CFunction, dlopen, FFIType, toArrayBuffer } from "bun:ffi";
import type { Pointer } from "bun:ffi";
import { MMAN } from "./abi/mman.ts";
import { SYSCALLS_ARM64, SYSCALLS_X64 } from "./abi/numbers.ts";

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

const INTEGER = FFIType.i64_fast;

const SIGNATURE = {
  args: [INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER],
  returns: INTEGER,
} as const;

type SyscallFunction = (
  number: number,
  a: number,
  b: number,
  c: number,
  d: number,
  e: number,
  f: number,
) => number;

if (process.arch !== "x64" && process.arch !== "arm64") {
  throw new Error(`no system call numbers for the architecture ${process.arch}`);
}

/** System call numbers of this machine. */
export const NR: Record<keyof typeof SYSCALLS_X64, number> =
  process.arch === "x64" ? SYSCALLS_X64 : SYSCALLS_ARM64;

function openLibc(): { syscall: SyscallFunction; errno: () => number } {
  const names = ["libc.so.6", `libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`];
  let last: unknown;
  for (const name of names) {
    try {
      const { symbols } = dlopen(name, {
        syscall: SIGNATURE,
        __errno_location: { args: [], returns: FFIType.ptr },
      });
      const errno = (): number => {
        const location = symbols.__errno_location();
        if (location === null) throw new Error("__errno_location returned NULL");
        return new Int32Array(toArrayBuffer(location, 0, 4))[0] ?? 0;
      };
      return { syscall: symbols.syscall as unknown as SyscallFunction, errno };
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`no C library found (tried ${names.join(", ")})`, { cause: last });
}

function makeSyscall(): { call: SyscallFunction; direct: boolean } {
  const libc = openLibc();
  const viaLibc: SyscallFunction = (number, a, b, c, d, e, f) => {
    const result = libc.syscall(number, a, b, c, d, e, f);
    return result === -1 ? -libc.errno() : result;
  };
  const address = viaLibc(
    NR.mmap,
    0,
    CODE_BYTES,
    MMAN.PROT_READ | MMAN.PROT_WRITE,
    MMAN.MAP_PRIVATE | MMAN.MAP_ANONYMOUS,
    -1,
    0,
  );
  if (address < 0) return { call: viaLibc, direct: false };
  // SAFETY: the page was mapped above, is CODE_BYTES long and is never unmapped.
  const code = new Uint8Array(toArrayBuffer(address as Pointer, 0, CODE_BYTES));
  code.set(process.arch === "x64" ? CODE_X64 : CODE_ARM64);
  const executable = viaLibc(
    NR.mprotect,
    address,
    CODE_BYTES,
    MMAN.PROT_READ | MMAN.PROT_EXEC,
    0,
    0,
    0,
  );
  if (executable < 0) {
    viaLibc(NR.munmap, address, CODE_BYTES, 0, 0, 0, 0);
    return { call: viaLibc, direct: false };
  }
  const call = CFunction({ ptr: address as Pointer, ...SIGNATURE });
  return { call: call as unknown as SyscallFunction, direct: true };
}

const made = makeSyscall();

/** Whether system calls go straight to the kernel (false: through libc's syscall(2)). */
export const DIRECT_SYSCALLS = made.direct;

const call = made.call;

/**
 * One system call. Arguments are integers or addresses, all safe integers; the result is what the
 * kernel returned, -4095..-1 meaning an errno. FFI turns NaN and undefined into 0 without a word,
 * so callers pass numbers that their own types guarantee.
 */
export function syscall(number: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number {
  return call(number, a, b, c, d, e, f);
}

/**
 * The memory [address, address + length) as an ArrayBuffer, without a copy and without ownership.
 * At most VIEW_BYTES_MAX long (a limit of the engine: 2^32 exactly). The caller keeps the mapping
 * alive for as long as the buffer is used.
 */
export function bufferAt(address: number, length: number): ArrayBuffer {
  if (length > VIEW_BYTES_MAX) throw new RangeError(`a view of ${length} bytes is too long`);
  // SAFETY: callers in this folder pass mappings they own; others get addresses only from those.
  return toArrayBuffer(address as Pointer, 0, length);
}

/** Longest view that `bufferAt` can make. */
export const VIEW_BYTES_MAX = 1 << 30;
