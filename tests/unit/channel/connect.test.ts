import { describe, expect, test } from "bun:test";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import {
  closeDescriptor,
  POLL,
  PollSet,
  raiseEventDescriptor,
} from "../../../syscalls/descriptor.ts";
import {
  acceptConnection,
  bindAndListen,
  makeSocket,
  startConnect,
} from "../../../syscalls/socket.ts";
import type { SocketAddress } from "../../../syscalls/socket.ts";
import { StoppedError } from "../../../src/channel/channel.ts";
import { connectTo } from "../../../src/channel/connect.ts";
import type { Way } from "../../../src/channel/connect.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { startWatchdog } from "../../helpers/watchdog.ts";
import type * as ChannelEndsFixture from "../../fixtures/channel-ends.ts";

const FIXTURE = import.meta.resolve("../../fixtures/channel-ends.ts");
const startEnd = () => startThread<typeof ChannelEndsFixture>(FIXTURE);

const LOOPBACK = { family: "inet", host: "127.0.0.1", port: 0 } as const;

/** The way to `addresses`, for `patienceMs`. */
function to(addresses: readonly SocketAddress[], patienceMs: number): Way {
  return { addresses, patienceMs, linkTimeoutMs: 30_000 };
}

/** An address on which nobody listens: its port was free a moment ago. */
function deafAddress(): SocketAddress {
  const { fd, address } = openListener([LOOPBACK]);
  closeDescriptor(fd);
  return address;
}

/** Waits until a descriptor can be read. */
function readable(fd: number): void {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  expect(poll.wait(8000)).toBe(1);
}

describe("connecting", () => {
  test("gives a connection that carries bytes", async () => {
    await using watchdog = await startWatchdog();
    using descriptors = new Descriptors();
    const listener = openListener([LOOPBACK]);
    descriptors.add(listener.fd);
    const fd = descriptors.add(connectTo(to([listener.address], 5000), watchdog.stopFd));
    readable(listener.fd);
    const server = descriptors.add(acceptConnection(listener.fd));
    writeBytes(fd, Uint8Array.of(1));
    readable(server);
  });

  test("takes the first address that answers", async () => {
    await using watchdog = await startWatchdog();
    using descriptors = new Descriptors();
    const listener = openListener([LOOPBACK]);
    descriptors.add(listener.fd);
    const addresses = [deafAddress(), listener.address];
    descriptors.add(connectTo(to(addresses, 5000), watchdog.stopFd));
    readable(listener.fd);
  });

  test("tries again until somebody listens", async () => {
    await using end = await startEnd();
    await using directory = new TemporaryDirectory("connect");
    using descriptors = new Descriptors();
    const address = { family: "unix", path: directory.file("socket") } as const;
    const readyFd = descriptors.event();
    const connecting = end.call("connect", [address], descriptors.event(), 8000, readyFd);
    readable(readyFd);
    descriptors.add(openListener([address]).fd);
    expect(descriptors.add(await connecting)).toBeGreaterThan(0);
  });

  test("gives up after its patience, with the address, the reason and what to do", () => {
    using descriptors = new Descriptors();
    const address = deafAddress();
    const { port } = address as { port: number };
    const began = performance.now();
    let failure: unknown;
    try {
      connectTo(to([address], 150), descriptors.event());
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(PostcopyError);
    expect(failure).toMatchObject({
      code: "CANNOT_CONNECT",
      message: `Cannot connect to tcp:127.0.0.1:${port}`,
      hint: "start the receiving end first, or raise --connect-timeout",
      cause: { syscall: "connect", code: "ECONNREFUSED" },
    });
    // The last try may begin a pause before the end.
    expect(performance.now() - began).toBeGreaterThan(90);
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test("tries at least once, even without patience", async () => {
    await using watchdog = await startWatchdog();
    using descriptors = new Descriptors();
    const listener = openListener([LOOPBACK]);
    descriptors.add(listener.fd);
    descriptors.add(connectTo(to([listener.address], 0), watchdog.stopFd));
    expect(() => connectTo(to([deafAddress()], 0), watchdog.stopFd)).toThrow("Cannot connect");
  });

  test("to a unix socket whose backlog is full waits for room in it", async () => {
    await using end = await startEnd();
    await using directory = new TemporaryDirectory("connect");
    using descriptors = new Descriptors();
    const address = { family: "unix", path: directory.file("socket") } as const;
    const listenFd = descriptors.add(makeSocket("unix"));
    bindAndListen(listenFd, address, 0);
    let result = 0;
    while (result === 0) result = startConnect(descriptors.add(makeSocket("unix")), address);
    expect(result).toBe(-ERRNO.EAGAIN);
    const stopFd = descriptors.event();
    expect(() => connectTo(to([address], 60), stopFd)).toThrow("Cannot connect");

    const readyFd = descriptors.event();
    const connecting = end.call("connect", [address], stopFd, 8000, readyFd);
    readable(readyFd);
    for (let fd = 0; fd >= 0;) {
      fd = acceptConnection(listenFd);
      if (fd >= 0) descriptors.add(fd);
    }
    const fd = descriptors.add(await connecting);
    // It is connected, not just writable.
    expect(writeBytes(fd, Uint8Array.of(1))).toBe(1);
    readable(listenFd);
    readable(descriptors.add(acceptConnection(listenFd)));
  });

  test("is stopped at once, in a try and between two", async () => {
    await using end = await startEnd();
    using descriptors = new Descriptors();
    const stopFd = descriptors.event();
    const readyFd = descriptors.event();
    const connecting = end.call("connect", [deafAddress()], stopFd, 60_000, readyFd);
    readable(readyFd);
    raiseEventDescriptor(stopFd);
    const failure: unknown = await connecting.catch((error: unknown) => error);
    expect(String(failure)).toBe("StoppedError: Stopped on request");
    expect(() => connectTo(to([deafAddress()], 60_000), stopFd)).toThrow(StoppedError);
  });
});
