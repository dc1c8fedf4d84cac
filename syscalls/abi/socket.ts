/** sys/socket.h and the address families used: socket(2), ip(7), tcp(7), unix(7). */
import type { AbiTable } from "./table.ts";

export const SOCKET = {
  AF_UNIX: 1,
  AF_INET: 2,
  AF_INET6: 10,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_NONBLOCK: 0x800,
  SOCK_CLOEXEC: 0x80000,
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  SO_ERROR: 4,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_KEEPALIVE: 9,
  SO_PEERCRED: 17,
  SO_MAX_PACING_RATE: 47,
  SO_PEERPIDFD: 77,
  SHUT_RD: 0,
  SHUT_WR: 1,
  SHUT_RDWR: 2,
  MSG_PEEK: 2,
  MSG_CTRUNC: 8,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  MSG_CMSG_CLOEXEC: 0x4000_0000,
  SCM_RIGHTS: 1,
} as const;

export const UCRED = {
  "struct ucred": { size: 12, fields: { pid: 0, uid: 4, gid: 8 } },
} as const;

export const MESSAGE = {
  "struct msghdr": {
    size: 56,
    fields: { msg_iov: 16, msg_iovlen: 24, msg_control: 32, msg_controllen: 40, msg_flags: 48 },
  },
  "struct cmsghdr": { size: 16, fields: { cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 } },
} as const;

export const ABI = {
  header: "sys/socket.h",
  constants: SOCKET,
  structs: { ...UCRED, ...MESSAGE },
} satisfies AbiTable;

export const TCP = {
  TCP_NODELAY: 1,
  TCP_KEEPIDLE: 4,
  TCP_KEEPINTVL: 5,
  TCP_INFO: 11,
  TCP_QUICKACK: 12,
  TCP_USER_TIMEOUT: 18,
  TCP_NOTSENT_LOWAT: 25,
} as const;

export const SOCKADDR_IN = {
  "struct sockaddr_in": { size: 16, fields: { sin_family: 0, sin_port: 2, sin_addr: 4 } },
  "struct sockaddr_in6": {
    size: 28,
    fields: { sin6_family: 0, sin6_port: 2, sin6_flowinfo: 4, sin6_addr: 8, sin6_scope_id: 24 },
  },
} as const;

export const ABI_TCP = { header: "netinet/tcp.h", constants: TCP, structs: {} } satisfies AbiTable;

/**
 * Where fields of struct tcp_info lie. Its size grows with the kernel's age, and libc has an old one:
 * getsockopt(2) says how much of it a kernel knows.
 */
export const TCP_INFO_FIELDS = {
  tcpi_rtt: 68,
  tcpi_bytes_acked: 120,
  tcpi_min_rtt: 148,
} as const;

const TCP_INFO_OFFSETS = Object.entries(TCP_INFO_FIELDS).map(
  ([field, offset]): [string, number] => [`offsetof(struct tcp_info, ${field})`, offset],
);

export const ABI_TCP_INFO = {
  header: "linux/tcp.h",
  constants: Object.fromEntries(TCP_INFO_OFFSETS),
  structs: {},
} satisfies AbiTable;

export const SOCKIOS = { SIOCOUTQNSD: 0x894b } as const;

export const ABI_SOCKIOS = {
  header: "linux/sockios.h",
  constants: SOCKIOS,
  structs: {},
} satisfies AbiTable;

/** Protocol numbers. */
export const IP = { IPPROTO_TCP: 6 } as const;

export const ABI_IN = {
  header: "netinet/in.h",
  constants: IP,
  structs: SOCKADDR_IN,
} satisfies AbiTable;

export const SOCKADDR_UN = {
  "struct sockaddr_un": { size: 110, fields: { sun_family: 0, sun_path: 2 } },
} as const;

export const ABI_UN = {
  header: "sys/un.h",
  constants: {},
  structs: SOCKADDR_UN,
} satisfies AbiTable;
