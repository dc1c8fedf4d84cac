/** sys/mman.h: mmap(2), madvise(2), mlockall(2), memfd_create(2). */
import type { AbiTable } from "./table.ts";

export const MMAN = {
  PROT_READ: 1,
  PROT_WRITE: 2,
  PROT_EXEC: 4,
  MAP_SHARED: 1,
  MAP_PRIVATE: 2,
  MAP_ANONYMOUS: 0x20,
  MAP_NORESERVE: 0x4000,
  MAP_POPULATE: 0x8000,
  MAP_HUGETLB: 0x40000,
  MAP_HUGE_SHIFT: 26,
  MADV_DONTNEED: 4,
  MADV_HUGEPAGE: 14,
  MADV_NOHUGEPAGE: 15,
  MADV_DONTNEED_LOCKED: 24,
  MCL_CURRENT: 1,
  MCL_FUTURE: 2,
  MCL_ONFAULT: 4,
  MFD_CLOEXEC: 1,
  MFD_ALLOW_SEALING: 2,
} as const;

export const ABI = { header: "sys/mman.h", constants: MMAN, structs: {} } satisfies AbiTable;
