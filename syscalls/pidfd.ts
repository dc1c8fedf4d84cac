/**
 * A process by a descriptor: pidfd_open(2), pidfd_send_signal(2). A number is given again to another
 * process when one has ended; a descriptor stays with the process that it was opened for.
 */
import { ERRNO } from "./abi/errno.ts";
import { SIGNAL } from "./abi/signal.ts";
import { check } from "./error.ts";
import { NR, syscall } from "./raw.ts";

/** A descriptor that polls readable once the process has ended. @throws SyscallError ESRCH. */
export function openProcess(pid: number): number {
  return check("pidfd_open", syscall(NR.pidfd_open, pid, 0), `pid ${pid}`);
}

/**
 * Ends the process with SIGKILL. False when it has ended already.
 * @throws SyscallError EPERM when it is another user's.
 */
export function killProcess(pidfd: number): boolean {
  const result = syscall(NR.pidfd_send_signal, pidfd, SIGNAL.SIGKILL, 0, 0);
  if (result === -ERRNO.ESRCH) return false;
  check("pidfd_send_signal", result, `fd ${pidfd}, SIGKILL`);
  return true;
}
