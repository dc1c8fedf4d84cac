/** Threads and processes: gettid(2), setpriority(2), and the monotonic clock. */
import { RESOURCE, TIME } from "./abi/file.ts";
import { check } from "./error.ts";
import { getU64, mapScratch } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Gives the calling thread a nice value (-20 most favoured). Returns whether the host allowed it:
 * below 0 it takes CAP_SYS_NICE or RLIMIT_NICE.
 */
export function setThreadNice(nice: number): boolean {
  return syscall(NR.setpriority, RESOURCE.PRIO_PROCESS, threadId(), nice) === 0;
}

/** The kernel's number of the calling thread. */
export function threadId(): number {
  return check("gettid", syscall(NR.gettid));
}

let clockScratch: Scratch | undefined;

/** CLOCK_MONOTONIC in nanoseconds: comparable between all processes of one boot of one host. */
export function monotonicNs(): number {
  clockScratch ??= mapScratch(16);
  const { address, view } = clockScratch;
  check("clock_gettime", syscall(NR.clock_gettime, TIME.CLOCK_MONOTONIC, address));
  return getU64(view, 0) * 1e9 + getU64(view, 8);
}

/** Bits of a clockid_t below a process's number (inverted): all its threads, by the scheduler's count. */
const PROCESS_CLOCK_BITS = 3;
const CPUCLOCK_SCHED = 2;

/**
 * CPU time of another process in nanoseconds, user and system together, of all its threads, also of
 * those that have ended; its children's is not in it. The clock is that of clock_getcpuclockid(3).
 * @throws SyscallError EINVAL when there is no such process.
 */
export function processCpuNs(pid: number): number {
  clockScratch ??= mapScratch(16);
  const { address, view } = clockScratch;
  const clock = (~pid << PROCESS_CLOCK_BITS) | CPUCLOCK_SCHED;
  check("clock_gettime", syscall(NR.clock_gettime, clock, address), `CPU time of pid ${pid}`);
  return getU64(view, 0) * 1e9 + getU64(view, 8);
}

/** CPU time of the calling thread in nanoseconds, user and system together. */
export function threadCpuNs(): number {
  clockScratch ??= mapScratch(16);
  const { address, view } = clockScratch;
  const clock = TIME.CLOCK_THREAD_CPUTIME_ID;
  check("clock_gettime", syscall(NR.clock_gettime, clock, address), "CLOCK_THREAD_CPUTIME_ID");
  return getU64(view, 0) * 1e9 + getU64(view, 8);
}
