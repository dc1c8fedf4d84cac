/** fcntl.h, sys/file.h, linux/falloc.h, poll.h and others: what the descriptor calls need. */
import type { AbiTable } from "./table.ts";

export const FCNTL = {
  O_RDONLY: 0,
  O_RDWR: 2,
  O_NONBLOCK: 0x800,
  O_CLOEXEC: 0x80000,
  AT_FDCWD: -100,
  F_SETFD: 2,
  FD_CLOEXEC: 1,
  F_GETFL: 3,
  F_SETFL: 4,
  F_SETSIG: 10,
  F_SETLEASE: 1024,
  F_ADD_SEALS: 1033,
  F_GET_SEALS: 1034,
  F_SEAL_SEAL: 1,
  F_SEAL_SHRINK: 2,
} as const;

export const ABI = { header: "fcntl.h", constants: FCNTL, structs: {} } satisfies AbiTable;

export const LEASE = { F_RDLCK: 0, F_UNLCK: 2 } as const;

export const ABI_LEASE = { header: "fcntl.h", constants: LEASE, structs: {} } satisfies AbiTable;

export const SIGNAL = { SIGWINCH: 28 } as const;

export const ABI_SIGNAL = { header: "signal.h", constants: SIGNAL, structs: {} } satisfies AbiTable;

/** Advice of posix_fadvise(2). */
export const FADVISE = { POSIX_FADV_DONTNEED: 4 } as const;

export const ABI_FADVISE = {
  header: "linux/fadvise.h",
  constants: FADVISE,
  structs: {},
} satisfies AbiTable;

export const FLOCK = { LOCK_SH: 1, LOCK_EX: 2, LOCK_NB: 4, LOCK_UN: 8 } as const;

export const ABI_FLOCK = {
  header: "sys/file.h",
  constants: FLOCK,
  structs: {},
} satisfies AbiTable;

export const FALLOC = { FALLOC_FL_KEEP_SIZE: 1, FALLOC_FL_PUNCH_HOLE: 2 } as const;

export const ABI_FALLOC = {
  header: "linux/falloc.h",
  constants: FALLOC,
  structs: {},
} satisfies AbiTable;

/** Whence of lseek(2): the next byte that is data, or in a hole. */
export const SEEK = { SEEK_DATA: 3, SEEK_HOLE: 4 } as const;

export const ABI_SEEK = {
  header: "linux/fs.h",
  constants: SEEK,
  structs: {},
} satisfies AbiTable;

export const POLL = {
  POLLIN: 1,
  POLLOUT: 4,
  POLLERR: 8,
  POLLHUP: 0x10,
  POLLNVAL: 0x20,
  POLLRDHUP: 0x2000,
} as const;

export const POLL_STRUCTS = {
  "struct pollfd": { size: 8, fields: { fd: 0, events: 4, revents: 6 } },
} as const;

export const ABI_POLL = {
  header: "poll.h",
  constants: POLL,
  structs: POLL_STRUCTS,
} satisfies AbiTable;

export const EVENTFD = { EFD_CLOEXEC: 0x80000, EFD_NONBLOCK: 0x800 } as const;

export const ABI_EVENTFD = {
  header: "sys/eventfd.h",
  constants: EVENTFD,
  structs: {},
} satisfies AbiTable;

export const UIO_STRUCTS = {
  "struct iovec": { size: 16, fields: { iov_base: 0, iov_len: 8 } },
} as const;

export const ABI_UIO = {
  header: "sys/uio.h",
  constants: {},
  structs: UIO_STRUCTS,
} satisfies AbiTable;

export const TIME = { CLOCK_MONOTONIC: 1, CLOCK_THREAD_CPUTIME_ID: 3 } as const;

export const TIME_STRUCTS = {
  "struct timespec": { size: 16, fields: { tv_sec: 0, tv_nsec: 8 } },
} as const;

export const ABI_TIME = {
  header: "time.h",
  constants: TIME,
  structs: TIME_STRUCTS,
} satisfies AbiTable;

export const RESOURCE = { PRIO_PROCESS: 0 } as const;

export const ABI_RESOURCE = {
  header: "sys/resource.h",
  constants: RESOURCE,
  structs: {},
} satisfies AbiTable;
