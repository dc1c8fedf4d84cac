/** fcntl(2) with F_SETLEASE, of which only one question is used: who else has a file open. */
import { ERRNO } from "./abi/errno.ts";
import { FCNTL, LEASE, SIGNAL } from "./abi/file.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Whether somebody has the file of `fd`, which is open for reading, open for writing. False also where
 * it cannot be told: of files of other users (without CAP_LEASE), and on some network file systems.
 */
export function isBeingWritten(fd: number): boolean {
  // Whoever opens it while the lease is ours has us told by a signal: by one that ends nobody.
  syscall(NR.fcntl, fd, FCNTL.F_SETSIG, SIGNAL.SIGWINCH);
  const result = syscall(NR.fcntl, fd, FCNTL.F_SETLEASE, LEASE.F_RDLCK);
  if (result === 0) syscall(NR.fcntl, fd, FCNTL.F_SETLEASE, LEASE.F_UNLCK);
  return result === -ERRNO.EAGAIN;
}
