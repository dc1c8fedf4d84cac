/** How the scheduler treats a thread: sched_setattr(2), getpriority(2), sched(7). */
import { RESOURCE } from "./abi/file.ts";
import { SCHED, SCHED_STRUCTS } from "./abi/scheduling.ts";
import { check } from "./error.ts";
import { mapScratch, putU64 } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

/** Stands for the calling thread. */
const CALLER = 0;
/** getpriority(2) returns 20 minus the nice value, as less than 0 is an error. */
const NICE_BASE = 20;

let scratch: Scratch | undefined;

/** The nice value of the calling thread. */
export function threadNice(): number {
  const base = check("getpriority", syscall(NR.getpriority, RESOURCE.PRIO_PROCESS, CALLER));
  return NICE_BASE - base;
}

/**
 * Puts a thread before all threads of the usual class (SCHED_FIFO); `priority` 1 is the least of 99.
 * Threads that it starts do not inherit that. Returns whether the host allowed it: it takes
 * CAP_SYS_NICE or RLIMIT_RTPRIO, and a control group that has a share of the real time.
 */
export function setThreadRealTime(priority: number, thread = CALLER): boolean {
  return setAttributes(thread, SCHED.SCHED_FIFO, 0, priority);
}

/**
 * Puts a thread into the usual class, with a nice value (-20 most favoured) that threads which it
 * starts do not inherit. Returns whether the host allowed it: less than the present value takes
 * CAP_SYS_NICE or RLIMIT_NICE.
 */
export function setThreadUsual(nice: number, thread = CALLER): boolean {
  return setAttributes(thread, SCHED.SCHED_NORMAL, nice, 0);
}

function setAttributes(thread: number, policy: number, nice: number, priority: number): boolean {
  const { size, fields } = SCHED_STRUCTS["struct sched_attr"];
  const { address, bytes, view } = (scratch ??= mapScratch(size));
  bytes.fill(0);
  view.setUint32(fields.size, size, true);
  view.setUint32(fields.sched_policy, policy, true);
  putU64(view, fields.sched_flags, SCHED.SCHED_FLAG_RESET_ON_FORK);
  view.setInt32(fields.sched_nice, nice, true);
  view.setUint32(fields.sched_priority, priority, true);
  return syscall(NR.sched_setattr, thread, address, 0) === 0;
}
