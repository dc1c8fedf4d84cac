/** How the scheduler treats the calling thread: sched_setattr(2), sched(7). */
import { SCHED, SCHED_STRUCTS } from "./abi/scheduling.ts";
import { mapScratch, putU64 } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

let scratch: Scratch | undefined;

/**
 * Puts the calling thread before all threads of the usual class (SCHED_FIFO); `priority` 1 is the
 * least of 99. Returns whether the host allowed it: it takes CAP_SYS_NICE or RLIMIT_RTPRIO, and a
 * control group that has a share of the real time.
 */
export function setThreadRealTime(priority: number): boolean {
  return setAttributes({ policy: SCHED.SCHED_FIFO, nice: 0, priority, sliceNs: 0 });
}

/**
 * Puts the calling thread into the usual class, with a nice value and (since Linux 6.12) a time slice
 * of its own; 0 is the usual one. A short one is asked for sooner after a wake-up, and costs no
 * share. Returns whether the host allowed it: less than the present nice value takes CAP_SYS_NICE or
 * RLIMIT_NICE.
 */
export function setThreadUsual(nice: number, sliceNs = 0): boolean {
  return setAttributes({ policy: SCHED.SCHED_NORMAL, nice, priority: 0, sliceNs });
}

function setAttributes(attributes: {
  policy: number;
  nice: number;
  priority: number;
  sliceNs: number;
}): boolean {
  const { size, fields } = SCHED_STRUCTS["struct sched_attr"];
  const { address, bytes, view } = (scratch ??= mapScratch(size));
  bytes.fill(0);
  view.setUint32(fields.size, size, true);
  view.setUint32(fields.sched_policy, attributes.policy, true);
  view.setInt32(fields.sched_nice, attributes.nice, true);
  view.setUint32(fields.sched_priority, attributes.priority, true);
  putU64(view, fields.sched_runtime, attributes.sliceNs);
  return syscall(NR.sched_setattr, 0, address, 0) === 0;
}
