import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { IP, SOCKET, TCP } from "../../../syscalls/abi/socket.ts";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { readInto, writeFrom } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { peerCredentials, peerProcess } from "../../../syscalls/peer-process.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import {
  acknowledgeNow,
  acceptConnection,
  bindAndListen,
  bindSocket,
  formatSocketAddress,
  limitPace,
  limitUnsent,
  localAddress,
  makeDatagramSocket,
  makeSocket,
  peekBytes,
  readTcpState,
  remoteAddress,
  shutdownSocket,
  startConnect,
  takeSocketError,
  tuneTcp,
  UNIX_PATH_BYTES_MAX,
  unsentBytes,
} from "../../../syscalls/socket.ts";
import type { SocketAddress } from "../../../syscalls/socket.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const scratch = mapScratch(4096);

/** Waits until a descriptor is ready for something. */
function ready(fd: number, events: number): void {
  const poll = new PollSet();
  poll.add(fd, events);
  expect(poll.wait(10_000)).toBe(1);
}

function listenOn(descriptors: Descriptors, address: SocketAddress): [number, SocketAddress] {
  const fd = descriptors.add(makeSocket(address.family));
  bindAndListen(fd, address, 4);
  return [fd, localAddress(fd)];
}

function connectTo(descriptors: Descriptors, address: SocketAddress): number {
  const fd = descriptors.add(makeSocket(address.family));
  const result = startConnect(fd, address);
  if (result !== -ERRNO.EINPROGRESS) expect(result).toBe(0);
  ready(fd, POLL.POLLOUT);
  expect(takeSocketError(fd)).toBe(0);
  return fd;
}

function option(fd: number, level: number, name: number): number {
  scratch.view.setUint32(8, 4, true);
  const { address } = scratch;
  expect(syscall(NR.getsockopt, fd, level, name, address, address + 8)).toBe(0);
  return scratch.view.getInt32(0, true);
}

describe("a connection over", () => {
  async function carries(descriptors: Descriptors, wanted: SocketAddress): Promise<void> {
    const [listener, address] = listenOn(descriptors, wanted);
    expect(acceptConnection(listener)).toBe(-ERRNO.EAGAIN);
    const client = connectTo(descriptors, address);
    ready(listener, POLL.POLLIN);
    const server = descriptors.add(acceptConnection(listener));
    expect(remoteAddress(client)).toEqual(address);
    expect(localAddress(server)).toEqual(address);
    if (address.family !== "unix") expect(remoteAddress(server)).toEqual(localAddress(client));
    expect(readInto(server, scratch.address, 10)).toBe(-ERRNO.EAGAIN);
    writeBytes(client, Uint8Array.of(1, 2, 3));
    ready(server, POLL.POLLIN);
    expect(readInto(server, scratch.address, 10)).toBe(3);
    await Promise.resolve();
  }

  test("IPv4, on a port that the kernel chose", async () => {
    using descriptors = new Descriptors();
    const wanted = { family: "inet", host: "127.0.0.1", port: 0 } as const;
    await carries(descriptors, wanted);
    const [, address] = listenOn(descriptors, wanted);
    expect(address).toMatchObject({ family: "inet", host: "127.0.0.1" });
    expect(address.family === "inet" && address.port).toBeGreaterThan(1023);
  });

  test("IPv6", async () => {
    using descriptors = new Descriptors();
    const wanted = { family: "inet6", host: "0:0::1", port: 0 } as const;
    await carries(descriptors, wanted);
    const [, address] = listenOn(descriptors, wanted);
    expect(address).toMatchObject({ family: "inet6", host: "::1" });
  });

  test("a unix socket tells which process listens there", async () => {
    using descriptors = new Descriptors();
    await using directory = new TemporaryDirectory("cred");
    const address = { family: "unix", path: directory.file("socket") } as const;
    listenOn(descriptors, address);
    const fd = descriptors.add(makeSocket("unix"));
    expect(startConnect(fd, address)).toBe(0);
    expect(peerProcess(fd)).toBe(process.pid);
    const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
    expect(peerCredentials(fd)).toEqual({ pid: process.pid, uid: uid ?? -1, gid: gid ?? -1 });
    const [inet] = listenOn(descriptors, { family: "inet", host: "127.0.0.1", port: 0 });
    expect(peerProcess(inet)).toBe(0);
  });

  test("a unix socket without a file, whose name is in errors as ss(8) shows it", async () => {
    using descriptors = new Descriptors();
    const path = `\0postcopy-test-${process.pid}`;
    await carries(descriptors, { family: "unix", path });
    expect(formatSocketAddress({ family: "unix", path })).toBe(`@${path.slice(1)}`);
  });

  test("datagrams go to a name without a file, and to no shorter or longer one", () => {
    using descriptors = new Descriptors();
    const receiver = descriptors.add(makeDatagramSocket());
    const path = `\0postcopy-datagrams-${process.pid}`;
    bindSocket(receiver, { family: "unix", path });
    const sender = descriptors.add(makeDatagramSocket());
    expect(startConnect(sender, { family: "unix", path: `${path}x` })).toBe(-ERRNO.ECONNREFUSED);
    expect(startConnect(sender, { family: "unix", path })).toBe(0);
    writeBytes(sender, Uint8Array.of(1, 2, 3));
    expect(readInto(receiver, scratch.address, 100)).toBe(3);
  });

  test("a unix socket, whose path may have 107 bytes", async () => {
    using descriptors = new Descriptors();
    await using directory = new TemporaryDirectory("socket");
    const base = directory.file("ü");
    const path = base + "x".repeat(UNIX_PATH_BYTES_MAX - Buffer.byteLength(base));
    await carries(descriptors, { family: "unix", path });
    expect(statSync(path).isSocket()).toBe(true);
    const fd = descriptors.add(makeSocket("unix"));
    expect(() => startConnect(fd, { family: "unix", path: `${path}x` })).toThrow(RangeError);
  });
});

describe("a refused", () => {
  test("connection has an errno", () => {
    using descriptors = new Descriptors();
    const [listener, address] = listenOn(descriptors, {
      family: "inet",
      host: "127.0.0.1",
      port: 0,
    });
    descriptors.close(listener);
    const fd = descriptors.add(makeSocket("inet"));
    if (startConnect(fd, address) === -ERRNO.EINPROGRESS) {
      ready(fd, POLL.POLLOUT);
      expect(takeSocketError(fd)).toBe(ERRNO.ECONNREFUSED);
    }
    expect(() => remoteAddress(fd)).toThrow("getpeername");
  });

  test("address is named in the error", () => {
    using descriptors = new Descriptors();
    const [, address] = listenOn(descriptors, { family: "inet6", host: "::1", port: 0 });
    const fd = descriptors.add(makeSocket("inet6"));
    expect(() => bindAndListen(fd, address, 1)).toThrow(
      `bind(${formatSocketAddress(address)}) failed: EADDRINUSE`,
    );
    expect(formatSocketAddress(address)).toMatch(/^\[::1\]:\d+$/);
  });
});

describe("peeking", () => {
  test("shows bytes without taking them, the end, and nothing", () => {
    using descriptors = new Descriptors();
    const [a, b] = descriptors.pair();
    expect(peekBytes(a, scratch.address, 4)).toBe(-ERRNO.EAGAIN);
    writeBytes(b, Uint8Array.of(9, 8, 7, 6, 5));
    expect(peekBytes(a, scratch.address, 4)).toBe(4);
    expect(peekBytes(a, scratch.address, 100)).toBe(5);
    expect(readInto(a, scratch.address, 100)).toBe(5);
    expect([...scratch.bytes.subarray(0, 5)]).toEqual([9, 8, 7, 6, 5]);
    shutdownSocket(b);
    expect(peekBytes(a, scratch.address, 4)).toBe(0);
  });
});

describe("shutting down", () => {
  test("ends both directions at both ends", () => {
    using descriptors = new Descriptors();
    const [a, b] = descriptors.pair();
    shutdownSocket(a);
    expect(readInto(b, scratch.address, 1)).toBe(0);
    expect(readInto(a, scratch.address, 1)).toBe(0);
    expect(writeFrom(b, scratch.address, 1)).toBe(-ERRNO.EPIPE);
  });

  test("is nothing for what is no connected socket", () => {
    using descriptors = new Descriptors();
    expect(() => shutdownSocket(descriptors.event())).not.toThrow();
    expect(() => shutdownSocket(descriptors.add(makeSocket("inet")))).not.toThrow();
    expect(() => shutdownSocket(-1)).toThrow("EBADF");
  });
});

test("TCP connections are tuned: no delay, and a dead peer is noticed in the time that is given", () => {
  using descriptors = new Descriptors();
  const fd = descriptors.add(makeSocket("inet"));
  tuneTcp(fd, 30_000);
  limitUnsent(fd, 128 * 1024);
  const tcp = (name: number): number => option(fd, IP.IPPROTO_TCP, name);
  expect({
    noDelay: tcp(TCP.TCP_NODELAY),
    keepAlive: option(fd, SOCKET.SOL_SOCKET, SOCKET.SO_KEEPALIVE),
    firstProbe: tcp(TCP.TCP_KEEPIDLE),
    furtherProbes: tcp(TCP.TCP_KEEPINTVL),
    userTimeout: tcp(TCP.TCP_USER_TIMEOUT),
    unsent: tcp(TCP.TCP_NOTSENT_LOWAT),
  }).toEqual({
    noDelay: 1,
    keepAlive: 1,
    firstProbe: 10,
    furtherProbes: 5,
    userTimeout: 30_000,
    unsent: 131_072,
  });
  // The kernel counts these in whole seconds, and takes no 0.
  tuneTcp(fd, 1000);
  expect([tcp(TCP.TCP_KEEPIDLE), tcp(TCP.TCP_KEEPINTVL)]).toEqual([1, 1]);
  const [unixSocket] = descriptors.pair();
  expect(() => limitUnsent(unixSocket, 1)).toThrow("setsockopt");
});

test("a pace is kept by the socket, until there is none any more", () => {
  using descriptors = new Descriptors();
  const [, address] = listenOn(descriptors, { family: "inet", host: "127.0.0.1", port: 0 });
  const fd = connectTo(descriptors, address);
  const pace = (): number => option(fd, SOCKET.SOL_SOCKET, SOCKET.SO_MAX_PACING_RATE);
  limitPace(fd, 125_000_000.5);
  expect(pace()).toBe(125_000_001);
  limitPace(fd, 0);
  expect(pace()).toBe(-1);
});

test("TCP tells how much its peer has received, and how long a round trip takes", () => {
  using descriptors = new Descriptors();
  const [listener, address] = listenOn(descriptors, { family: "inet", host: "127.0.0.1", port: 0 });
  const fd = connectTo(descriptors, address);
  ready(listener, POLL.POLLIN);
  const peer = descriptors.add(acceptConnection(listener));
  const before = readTcpState(fd);
  expect(writeFrom(fd, scratch.address, 1000)).toBe(1000);
  ready(peer, POLL.POLLIN);
  const state = readTcpState(fd);
  if (before === undefined || state === undefined) throw new Error("no state");
  expect(state.ackedBytes - before.ackedBytes).toBe(1000);
  expect(state.minRttUs).toBeGreaterThan(0);
  expect(state.rttUs).toBeGreaterThanOrEqual(state.minRttUs);
  const [unixSocket] = descriptors.pair();
  expect(readTcpState(unixSocket)).toBeUndefined();
});

test("what a TCP connection has read is acknowledged at once, when that is asked for", () => {
  using descriptors = new Descriptors();
  const [listener, address] = listenOn(descriptors, { family: "inet", host: "127.0.0.1", port: 0 });
  const fd = connectTo(descriptors, address);
  ready(listener, POLL.POLLIN);
  descriptors.add(acceptConnection(listener));
  scratch.view.setInt32(0, 0, true);
  const level = IP.IPPROTO_TCP;
  expect(syscall(NR.setsockopt, fd, level, TCP.TCP_QUICKACK, scratch.address, 4)).toBe(0);
  expect(option(fd, level, TCP.TCP_QUICKACK)).toBe(0);
  expect(acknowledgeNow(fd)).toBe(true);
  expect(option(fd, level, TCP.TCP_QUICKACK)).toBe(1);
  expect(acknowledgeNow(descriptors.pair()[0])).toBe(false);
});

test("what waits in a TCP socket is counted until it is sent", () => {
  using descriptors = new Descriptors();
  const [listener, address] = listenOn(descriptors, { family: "inet", host: "127.0.0.1", port: 0 });
  const fd = connectTo(descriptors, address);
  ready(listener, POLL.POLLIN);
  const peer = descriptors.add(acceptConnection(listener));
  expect(unsentBytes(fd)).toBe(0);
  // Nobody reads: the peer takes what it has room for.
  let left = 0;
  for (let got = 0; (got = syscall(NR.write, fd, scratch.address, 4096)) > 0;) left += got;
  expect(unsentBytes(fd)).toBeGreaterThan(0);
  while (left > 0) {
    ready(peer, POLL.POLLIN);
    left -= readInto(peer, scratch.address, 4096);
  }
  expect(unsentBytes(fd)).toBe(0);
  expect(unsentBytes(descriptors.pair()[0])).toBeUndefined();
});
