/** linux/userfaultfd.h: features, ioctls, structs (see userfaultfd(2), ioctl_userfaultfd(2)). */
import type { AbiTable } from "./table.ts";

export const UFFD = {
  UFFD_API: 0xaa,
  UFFD_USER_MODE_ONLY: 1,
  USERFAULTFD_IOC_NEW: 0xaa00,

  UFFDIO_API: 0xc018aa3f,
  UFFDIO_REGISTER: 0xc020aa00,
  UFFDIO_UNREGISTER: 0x8010aa01,
  UFFDIO_WAKE: 0x8010aa02,
  UFFDIO_COPY: 0xc028aa03,
  UFFDIO_ZEROPAGE: 0xc020aa04,
  UFFDIO_WRITEPROTECT: 0xc018aa06,
  UFFDIO_CONTINUE: 0xc020aa07,

  UFFDIO_REGISTER_MODE_MISSING: 1,
  UFFDIO_REGISTER_MODE_WP: 2,
  UFFDIO_REGISTER_MODE_MINOR: 4,
  UFFDIO_WRITEPROTECT_MODE_WP: 1,

  UFFD_EVENT_PAGEFAULT: 0x12,
  UFFD_EVENT_FORK: 0x13,
  UFFD_EVENT_REMAP: 0x14,
  UFFD_EVENT_REMOVE: 0x15,
  UFFD_EVENT_UNMAP: 0x16,

  UFFD_PAGEFAULT_FLAG_WRITE: 1,
  UFFD_PAGEFAULT_FLAG_WP: 2,
  UFFD_PAGEFAULT_FLAG_MINOR: 4,

  UFFD_FEATURE_PAGEFAULT_FLAG_WP: 1 << 0,
  UFFD_FEATURE_EVENT_FORK: 1 << 1,
  UFFD_FEATURE_EVENT_REMAP: 1 << 2,
  UFFD_FEATURE_EVENT_REMOVE: 1 << 3,
  UFFD_FEATURE_MISSING_HUGETLBFS: 1 << 4,
  UFFD_FEATURE_MISSING_SHMEM: 1 << 5,
  UFFD_FEATURE_EVENT_UNMAP: 1 << 6,
  UFFD_FEATURE_SIGBUS: 1 << 7,
  UFFD_FEATURE_THREAD_ID: 1 << 8,
  UFFD_FEATURE_MINOR_HUGETLBFS: 1 << 9,
  UFFD_FEATURE_MINOR_SHMEM: 1 << 10,
  UFFD_FEATURE_EXACT_ADDRESS: 1 << 11,
  UFFD_FEATURE_WP_HUGETLBFS_SHMEM: 1 << 12,
  UFFD_FEATURE_WP_UNPOPULATED: 1 << 13,
  UFFD_FEATURE_POISON: 1 << 14,
  UFFD_FEATURE_WP_ASYNC: 1 << 15,
  UFFD_FEATURE_MOVE: 1 << 16,
} as const;

export const UFFD_STRUCTS = {
  "struct uffdio_api": { size: 24, fields: { api: 0, features: 8, ioctls: 16 } },
  "struct uffdio_range": { size: 16, fields: { start: 0, len: 8 } },
  "struct uffdio_register": {
    size: 32,
    fields: { "range.start": 0, "range.len": 8, mode: 16, ioctls: 24 },
  },
  "struct uffdio_copy": { size: 40, fields: { dst: 0, src: 8, len: 16, mode: 24, copy: 32 } },
  "struct uffdio_zeropage": {
    size: 32,
    fields: { "range.start": 0, "range.len": 8, mode: 16, zeropage: 24 },
  },
  "struct uffdio_writeprotect": {
    size: 24,
    fields: { "range.start": 0, "range.len": 8, mode: 16 },
  },
  "struct uffdio_continue": {
    size: 32,
    fields: { "range.start": 0, "range.len": 8, mode: 16, mapped: 24 },
  },
  "struct uffd_msg": {
    size: 32,
    fields: {
      event: 0,
      "arg.pagefault.flags": 8,
      "arg.pagefault.address": 16,
      "arg.pagefault.feat.ptid": 24,
      "arg.fork.ufd": 8,
      "arg.remap.from": 8,
      "arg.remap.to": 16,
      "arg.remap.len": 24,
      "arg.remove.start": 8,
      "arg.remove.end": 16,
    },
  },
} as const;

export const ABI = {
  header: "linux/userfaultfd.h",
  constants: UFFD,
  structs: UFFD_STRUCTS,
} satisfies AbiTable;
