/** sys/socket.h and the address families used: socket(2), ip(7), tcp(7), unix(7). */
import type { AbiTable } from "./table.ts";

export const SOCKET = {
  AF_UNIX: 1,
  AF_INET: 2,
  AF_INET6: 10,
  SOCK_STREAM: 1,
  SOCK_NONBLOCK: 0x800,
  SOCK_CLOEXEC: 0x80000,
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  SO_ERROR: 4,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_KEEPALIVE: 9,
  SO_PEERCRED: 17,
  SHUT_RD: 0,
  SHUT_WR: 1,
  SHUT_RDWR: 2,
  MSG_PEEK: 2,
  MSG_DONTWAIT: 0x40,
} as const;

export const UCRED = {
  "struct ucred": { size: 12, fields: { pid: 0, uid: 4, gid: 8 } },
} as const;

export const ABI = {
  header: "sys/socket.h",
  constants: SOCKET,
  structs: UCRED,
} satisfies AbiTable;

export const TCP = {
  TCP_NODELAY: 1,
  TCP_KEEPIDLE: 4,
  TCP_KEEPINTVL: 5,
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
