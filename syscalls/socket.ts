/** Sockets: socket(2), bind(2), listen(2), accept4(2), connect(2), tcp(7), unix(7). */
import { ERRNO } from "./abi/errno.ts";
import { IP, SOCKADDR_UN, SOCKET, SOCKIOS, TCP, TCP_INFO_FIELDS } from "./abi/socket.ts";
import { check } from "./error.ts";
import { formatInet, formatInet6, parseInet, parseInet6 } from "./inet.ts";
import { getU64, mapScratch } from "./memory.ts";
import type { Scratch } from "./memory.ts";
import { NR, syscall } from "./raw.ts";

/**
 * Where a socket is bound or connected: an IP literal and port, or a path. One that begins with a NUL
 * is a name without a file (the abstract namespace of unix(7)).
 */
export type SocketAddress =
  { family: "inet" | "inet6"; host: string; port: number } | { family: "unix"; path: string };

const SOCKADDR_BYTES_MAX = 128;
/** Longest path of a unix socket, without the terminating NUL. */
export const UNIX_PATH_BYTES_MAX = SOCKADDR_UN["struct sockaddr_un"].size - 3;

let scratch: Scratch | undefined;

function addressScratch(): Scratch {
  scratch ??= mapScratch(SOCKADDR_BYTES_MAX + 16);
  return scratch;
}

/** Text form for errors: "127.0.0.1:4444", "[::1]:4444" or a path. */
export function formatSocketAddress(address: SocketAddress): string {
  if (address.family === "unix") return address.path.replace(/^\0/, "@");
  const host = address.family === "inet6" ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

/** Writes the sockaddr into scratch memory and returns its length in bytes. */
function putAddress(address: SocketAddress): number {
  const { bytes, view } = addressScratch();
  bytes.fill(0);
  if (address.family === "unix") {
    const path = new TextEncoder().encode(address.path);
    if (path.length > UNIX_PATH_BYTES_MAX) throw new RangeError("unix socket path is too long");
    view.setUint16(0, SOCKET.AF_UNIX, true);
    bytes.set(path, 2);
    // A NUL ends a path, and would be part of a name without a file.
    return 2 + path.length + (path[0] === 0 ? 0 : 1);
  }
  view.setUint16(2, address.port);
  if (address.family === "inet") {
    view.setUint16(0, SOCKET.AF_INET, true);
    bytes.set(parseInet(address.host), 4);
    return 16;
  }
  view.setUint16(0, SOCKET.AF_INET6, true);
  bytes.set(parseInet6(address.host), 8);
  return 28;
}

/** Reads the sockaddr of `length` bytes in scratch memory. */
function getAddress(length: number): SocketAddress {
  const { bytes, view } = addressScratch();
  const family = view.getUint16(0, true);
  if (family === SOCKET.AF_UNIX) {
    // A socket without any name has no bytes here, not even a NUL.
    const isAbstract = length > 2 && bytes[2] === 0;
    const end = isAbstract ? length : bytes.indexOf(0, 2);
    return { family: "unix", path: new TextDecoder().decode(bytes.slice(2, end)) };
  }
  const port = view.getUint16(2);
  if (family === SOCKET.AF_INET) {
    return { family: "inet", host: formatInet(bytes.subarray(4, 8)), port };
  }
  if (family !== SOCKET.AF_INET6) throw new RangeError(`the address family ${family} is not known`);
  return { family: "inet6", host: formatInet6(bytes.subarray(8, 24)), port };
}

/** A non-blocking, close-on-exec stream socket of the address's family. */
export function makeSocket(family: SocketAddress["family"]): number {
  const domain = { unix: SOCKET.AF_UNIX, inet: SOCKET.AF_INET, inet6: SOCKET.AF_INET6 }[family];
  const type = SOCKET.SOCK_STREAM | SOCKET.SOCK_NONBLOCK | SOCKET.SOCK_CLOEXEC;
  return check("socket", syscall(NR.socket, domain, type, 0), family);
}

/** A blocking, close-on-exec datagram socket of the unix domain. */
export function makeDatagramSocket(): number {
  const type = SOCKET.SOCK_DGRAM | SOCKET.SOCK_CLOEXEC;
  return check("socket", syscall(NR.socket, SOCKET.AF_UNIX, type, 0), "unix, SOCK_DGRAM");
}

/** Two connected stream sockets (unix domain), blocking, close-on-exec. */
export function makeSocketPair(): [number, number] {
  const type = SOCKET.SOCK_STREAM | SOCKET.SOCK_CLOEXEC;
  const { address, view } = addressScratch();
  check("socketpair", syscall(NR.socketpair, SOCKET.AF_UNIX, type, 0, address), "unix");
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/** bind(2). @throws SyscallError EADDRINUSE, EADDRNOTAVAIL, EACCES. */
export function bindSocket(fd: number, address: SocketAddress): void {
  const length = putAddress(address);
  const text = formatSocketAddress(address);
  check("bind", syscall(NR.bind, fd, addressScratch().address, length), text);
}

/** bind(2) and listen(2). @throws SyscallError EADDRINUSE, EADDRNOTAVAIL, EACCES. */
export function bindAndListen(fd: number, address: SocketAddress, backlog: number): void {
  if (address.family !== "unix") setOption(fd, SOCKET.SOL_SOCKET, SOCKET.SO_REUSEADDR, 1);
  bindSocket(fd, address);
  check("listen", syscall(NR.listen, fd, backlog), formatSocketAddress(address));
}

/** accept4(2): a non-blocking connection, or -errno (EAGAIN when none waits). */
export function acceptConnection(fd: number): number {
  for (;;) {
    const flags = SOCKET.SOCK_NONBLOCK | SOCKET.SOCK_CLOEXEC;
    const result = syscall(NR.accept4, fd, 0, 0, flags);
    if (result !== -ERRNO.EINTR && result !== -ERRNO.ECONNABORTED) return result;
  }
}

/** connect(2) on a non-blocking socket: 0 when connected, else -errno (EINPROGRESS: poll for it). */
export function startConnect(fd: number, address: SocketAddress): number {
  const length = putAddress(address);
  return syscall(NR.connect, fd, addressScratch().address, length);
}

/** SO_ERROR: the errno that a connect in progress ended with, 0 for success. */
export function takeSocketError(fd: number): number {
  const { address, view } = addressScratch();
  view.setUint32(4, 4, true);
  const level = SOCKET.SOL_SOCKET;
  check(
    "getsockopt",
    syscall(NR.getsockopt, fd, level, SOCKET.SO_ERROR, address, address + 4),
    `fd ${fd}, SO_ERROR`,
  );
  return view.getInt32(0, true);
}

function setOption(fd: number, level: number, option: number, value: number): void {
  const { address, view } = addressScratch();
  view.setInt32(0, value, true);
  const result = syscall(NR.setsockopt, fd, level, option, address, 4);
  check("setsockopt", result, `fd ${fd}, level ${level}, option ${option}`);
}

/** A peer that says nothing is asked whether it lives after this part of the link timeout ... */
const KEEPALIVE_IDLE_SHARE = 1 / 3;
/** ... and then again after each such part. */
const KEEPALIVE_INTERVAL_SHARE = 1 / 6;

/**
 * TCP options of every migration connection: no delay, and a link on which nothing arrives any more
 * is dead (ETIMEDOUT) after `linkTimeoutMs`, whether something is being sent (TCP_USER_TIMEOUT, which
 * also counts while the peer takes nothing) or nothing is (keepalive; the same option replaces the
 * number of its probes, tcp(7)).
 */
export function tuneTcp(fd: number, linkTimeoutMs: number): void {
  const seconds = (share: number): number =>
    Math.max(1, Math.floor((linkTimeoutMs * share) / 1000));
  setOption(fd, IP.IPPROTO_TCP, TCP.TCP_NODELAY, 1);
  setOption(fd, SOCKET.SOL_SOCKET, SOCKET.SO_KEEPALIVE, 1);
  setOption(fd, IP.IPPROTO_TCP, TCP.TCP_KEEPIDLE, seconds(KEEPALIVE_IDLE_SHARE));
  setOption(fd, IP.IPPROTO_TCP, TCP.TCP_KEEPINTVL, seconds(KEEPALIVE_INTERVAL_SHARE));
  setOption(fd, IP.IPPROTO_TCP, TCP.TCP_USER_TIMEOUT, Math.ceil(linkTimeoutMs));
}

/** Keeps at most `bytes` unsent in the socket, so that what is written next is sent soon; 0: no limit. */
export function limitUnsent(fd: number, bytes: number): void {
  setOption(fd, IP.IPPROTO_TCP, TCP.TCP_NOTSENT_LOWAT, bytes);
}

/** Bytes that wait in a TCP socket and have not been sent; undefined where it is no such socket. */
export function unsentBytes(fd: number): number | undefined {
  const { address, view } = addressScratch();
  if (syscall(NR.ioctl, fd, SOCKIOS.SIOCOUTQNSD, address) < 0) return undefined;
  return view.getInt32(0, true);
}

/**
 * Acknowledges what has come on a TCP socket now, instead of with the next data that is sent, or after
 * 40 ms: a peer that holds small messages back (Nagle) waits for that. False where it is no such socket.
 */
export function acknowledgeNow(fd: number): boolean {
  const { address, view } = addressScratch();
  view.setInt32(0, 1, true);
  return syscall(NR.setsockopt, fd, IP.IPPROTO_TCP, TCP.TCP_QUICKACK, address, 4) === 0;
}

/** Sends at most so many bytes a second on a socket, evenly (SO_MAX_PACING_RATE); 0: no limit. */
export function limitPace(fd: number, bytesPerSecond: number): void {
  const most = bytesPerSecond > 0 ? Math.min(Math.ceil(bytesPerSecond), PACE_MAX) : PACE_MAX;
  setOption(fd, SOCKET.SOL_SOCKET, SOCKET.SO_MAX_PACING_RATE, most);
}

/** Stands for no limit, as a u32. */
const PACE_MAX = 0xffff_ffff;

/** What TCP knows of a connection (TCP_INFO). */
export interface TcpState {
  /** Bytes that the peer's kernel has received since the connection was made. */
  ackedBytes: number;
  /** Round trip in µs: of late, smoothed, and the shortest of the last minutes. */
  rttUs: number;
  minRttUs: number;
}

/** Room for as much of struct tcp_info as is read. */
const TCP_INFO_BYTES = TCP_INFO_FIELDS.tcpi_min_rtt + 4;

/** The state of a TCP connection; undefined where it is no such socket, or the kernel is too old. */
export function readTcpState(fd: number): TcpState | undefined {
  tcpInfo ??= mapScratch(TCP_INFO_BYTES + 4);
  const { address, view } = tcpInfo;
  view.setUint32(TCP_INFO_BYTES, TCP_INFO_BYTES, true);
  const lengthAt = address + TCP_INFO_BYTES;
  const result = syscall(NR.getsockopt, fd, IP.IPPROTO_TCP, TCP.TCP_INFO, address, lengthAt);
  if (result < 0 || view.getUint32(TCP_INFO_BYTES, true) < TCP_INFO_BYTES) return undefined;
  return {
    ackedBytes: getU64(view, TCP_INFO_FIELDS.tcpi_bytes_acked),
    rttUs: view.getUint32(TCP_INFO_FIELDS.tcpi_rtt, true),
    minRttUs: view.getUint32(TCP_INFO_FIELDS.tcpi_min_rtt, true),
  };
}

let tcpInfo: Scratch | undefined;

/** The address that a socket is bound to (the port that the kernel chose for port 0). */
export function localAddress(fd: number): SocketAddress {
  return queryAddress("getsockname", NR.getsockname, fd);
}

/** The address of the other end. @throws SyscallError ENOTCONN. */
export function remoteAddress(fd: number): SocketAddress {
  return queryAddress("getpeername", NR.getpeername, fd);
}

function queryAddress(name: string, number: number, fd: number): SocketAddress {
  const { address, bytes, view } = addressScratch();
  bytes.fill(0);
  view.setUint32(SOCKADDR_BYTES_MAX, SOCKADDR_BYTES_MAX, true);
  check(name, syscall(number, fd, address, address + SOCKADDR_BYTES_MAX), `fd ${fd}`);
  return getAddress(view.getUint32(SOCKADDR_BYTES_MAX, true));
}

/** Bytes that wait to be read, looked at without taking them: count, 0 at the end, or -errno. */
export function peekBytes(fd: number, address: number, length: number): number {
  const flags = SOCKET.MSG_PEEK | SOCKET.MSG_DONTWAIT;
  for (;;) {
    const result = syscall(NR.recvfrom, fd, address, length, flags, 0, 0);
    if (result !== -ERRNO.EINTR) return result;
  }
}

/** shutdown(2) of both directions: every read and write on the socket ends at once. */
export function shutdownSocket(fd: number): void {
  const result = syscall(NR.shutdown, fd, SOCKET.SHUT_RDWR);
  if (result === -ERRNO.ENOTCONN || result === -ERRNO.ENOTSOCK) return;
  check("shutdown", result, `fd ${fd}`);
}
