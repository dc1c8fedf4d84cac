/** libc's syscall(2): the way into the kernel that is always there, and the errno that it leaves. */
import { dlopen, FFIType, toArrayBuffer } from "bun:ffi";

const INTEGER = FFIType.i64_fast;

/** A system call as a C function: its number and six integers in, one integer out. */
export const SIGNATURE = {
  args: [INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER],
  returns: INTEGER,
} as const;

/** Returns what the kernel returned; -4095..-1 means an errno. */
export type SyscallFunction = (
  number: number,
  a: number,
  b: number,
  c: number,
  d: number,
  e: number,
  f: number,
) => number;

const NAMES = ["libc.so.6", `libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`];

/**
 * System calls through libc. errno has a fixed place in each thread, which is looked up once: a
 * look-up between a failed call and the reading of its errno could change it.
 * @throws Error that names the libraries tried.
 */
export function openLibc(): SyscallFunction {
  const { syscall, errno } = load();
  return (number, a, b, c, d, e, f) => {
    const result = syscall(number, a, b, c, d, e, f);
    return result === -1 ? -(errno[0] ?? 0) : result;
  };
}

function load(): { syscall: SyscallFunction; errno: Int32Array } {
  let last: unknown;
  for (const name of NAMES) {
    try {
      const { symbols } = dlopen(name, {
        syscall: SIGNATURE,
        __errno_location: { args: [], returns: FFIType.ptr },
      });
      const location = symbols.__errno_location();
      if (location === null) throw new Error("__errno_location returned NULL");
      // SAFETY: the calling thread's errno, which lives as long as the thread, and so does a view
      // that no other thread can get at.
      const errno = new Int32Array(toArrayBuffer(location, 0, 4));
      return { syscall: symbols.syscall as unknown as SyscallFunction, errno };
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`no C library found (tried ${NAMES.join(", ")})`, { cause: last });
}
