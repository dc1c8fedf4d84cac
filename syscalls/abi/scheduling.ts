/** linux/sched.h and linux/sched/types.h: how the scheduler treats a thread. */
import type { AbiTable } from "./table.ts";

export const SCHED = {
  SCHED_NORMAL: 0,
  SCHED_FIFO: 1,
  SCHED_FLAG_RESET_ON_FORK: 0x01,
} as const;

export const SCHED_STRUCTS = {
  "struct sched_attr": {
    size: 56,
    fields: {
      size: 0,
      sched_policy: 4,
      sched_flags: 8,
      sched_nice: 16,
      sched_priority: 20,
    },
  },
} as const;

export const ABI_SCHED = {
  header: "linux/sched.h",
  constants: SCHED,
  structs: {},
} satisfies AbiTable;

export const ABI_SCHED_TYPES = {
  header: "linux/sched/types.h",
  constants: {},
  structs: SCHED_STRUCTS,
} satisfies AbiTable;
