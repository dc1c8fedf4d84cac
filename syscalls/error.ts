/** A failed system call as an exception: made here and nowhere else. */
import { errnoName } from "./abi/errno.ts";

export class SyscallError extends Error {
  /** The call, as in its man page: "connect". */
  readonly syscall: string;
  /** Positive error number. */
  readonly errno: number;
  /** Its name: "ECONNREFUSED". */
  readonly code: string;

  constructor(syscall: string, errno: number, details: string) {
    super(`${syscall}(${details}) failed: ${errnoName(errno)}, ${errnoText(errno)}`);
    this.name = "SyscallError";
    this.syscall = syscall;
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

/** Sentences of strerror(3) for what operators are likely to meet. */
const TEXTS: Record<string, string> = {
  EPERM: "operation not permitted",
  ENOENT: "no such file or directory",
  EIO: "input/output error",
  EBADF: "bad file descriptor",
  EAGAIN: "resource temporarily unavailable",
  ENOMEM: "out of memory",
  EACCES: "permission denied",
  EFAULT: "bad address",
  EBUSY: "device or resource busy",
  EEXIST: "already exists",
  ENOTDIR: "not a directory",
  EINVAL: "invalid argument",
  EMFILE: "too many open files",
  ENOSPC: "no space left on device",
  EROFS: "read-only file system",
  EPIPE: "broken pipe",
  ENOSYS: "not implemented by this kernel",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "address not available on this host",
  ENETUNREACH: "network unreachable",
  ECONNRESET: "connection reset by peer",
  ETIMEDOUT: "timed out",
  ECONNREFUSED: "connection refused",
  EHOSTUNREACH: "no route to host",
  EDQUOT: "disk quota exceeded",
};

function errnoText(errno: number): string {
  return TEXTS[errnoName(errno)] ?? `error number ${errno}`;
}

/**
 * Returns `result` if it is not an errno, and throws otherwise. `details` are the arguments worth
 * showing, as text ("fd 5, 4096 bytes").
 */
export function check(syscall: string, result: number, details = ""): number {
  if (result < 0) throw new SyscallError(syscall, -result, details);
  return result;
}
