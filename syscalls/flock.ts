/** flock(2): an advisory lock on an open file or directory. */
import { ERRNO } from "./abi/errno.ts";
import { FLOCK } from "./abi/file.ts";
import { check } from "./error.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Whether another process has the lock of what `fd` has open for itself alone. Where it cannot be
 * told (NFS), nobody has.
 */
export function isLocked(fd: number): boolean {
  const result = syscall(NR.flock, fd, FLOCK.LOCK_SH | FLOCK.LOCK_NB);
  if (result === 0) syscall(NR.flock, fd, FLOCK.LOCK_UN);
  return result === -ERRNO.EAGAIN;
}

/**
 * Takes the lock of what `fd` has open for us alone, without waiting. Returns false when another
 * process has it. It is held until the last descriptor of this opening is closed, at the latest
 * with the process. @throws SyscallError where there are no locks (ENOLCK, EOPNOTSUPP).
 */
export function tryLock(fd: number): boolean {
  const result = syscall(NR.flock, fd, FLOCK.LOCK_EX | FLOCK.LOCK_NB);
  // EWOULDBLOCK has the number of EAGAIN on both architectures.
  if (result === -ERRNO.EAGAIN) return false;
  check("flock", result, `fd ${fd}, LOCK_EX|LOCK_NB`);
  return true;
}
