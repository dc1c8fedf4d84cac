import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect } from "node:net";
import { AllowList, parseAllowRule } from "../../../src/channel/allow.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { closeDescriptor, POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { withDeadline } from "../../helpers/deadline.ts";

test("a rule is an address, or a network", () => {
  expect(parseAllowRule("192.0.2.7")).toEqual({ address: "192.0.2.7", prefix: 32 });
  expect(parseAllowRule("192.0.2.0/24")).toEqual({ address: "192.0.2.0", prefix: 24 });
  expect(parseAllowRule("2001:db8::/32")).toEqual({ address: "2001:db8::", prefix: 32 });
  expect(parseAllowRule("::1")).toEqual({ address: "::1", prefix: 128 });
  for (const text of [
    "host2",
    "192.0.2.0/33",
    "::/129",
    "1.2.3.4/",
    "1.2.3.4/8/8",
    "1.2.3/8",
    "",
  ]) {
    expect(() => parseAllowRule(text)).toThrow("is not an address to connect from");
  }
  expect(() => parseAllowRule("fe80::1%eth0")).toThrow();
});

/** Whether each of some addresses may connect by some rules. */
function admitted(rules: readonly string[], hosts: readonly string[]): string[] {
  const list = new AllowList(rules.map(parseAllowRule), () => undefined);
  return hosts.filter((host) => list.admits(host, host));
}

test("rules admit what they name, also in the other family's clothes", () => {
  const hosts = ["192.0.2.7", "192.0.3.7", "::ffff:192.0.2.9", "2001:db8::9", "2001:db9::9"];
  expect(admitted([], hosts)).toEqual(hosts);
  expect(admitted(["192.0.2.0/24"], hosts)).toEqual(["192.0.2.7", "::ffff:192.0.2.9"]);
  expect(admitted(["2001:db8::/32", "192.0.3.7"], hosts)).toEqual(["192.0.3.7", "2001:db8::9"]);
  expect(admitted(["0.0.0.0/0"], hosts)).toHaveLength(3);
});

test("who may not connect is closed, one at a call, and the next one is taken", async () => {
  const { fd, address } = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
  if (address.family === "unix") throw new Error("a unix socket");
  const said: string[] = [];
  const list = new AllowList([parseAllowRule("127.0.0.2")], (message) => said.push(message));
  const closed = Promise.withResolvers<void>();
  const connectFrom = async (localAddress: string): Promise<void> => {
    const socket = connect({ host: "127.0.0.1", port: address.port, localAddress });
    socket.on("error", () => undefined).on("close", () => closed.resolve());
    await withDeadline(once(socket, "connect"), "a connection");
  };
  await connectFrom("127.0.0.1");
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  poll.wait(5000);
  expect(list.accept(fd)).toBe(-ERRNO.EAGAIN);
  await withDeadline(closed.promise, "the end of the connection");
  expect(said).toEqual([
    expect.stringMatching(
      /^A connection from tcp:127\.0\.0\.1:\d+ was turned away: --allow does not/,
    ),
  ]);
  // However many they are, the caller gets to its other work between them.
  for (let i = 0; i < 3; i++) await connectFrom("127.0.0.1");
  await connectFrom("127.0.0.2");
  for (let i = 0; i < 3; i++) {
    expect(poll.wait(5000)).toBe(1);
    expect(list.accept(fd)).toBe(-ERRNO.EAGAIN);
    expect(said).toHaveLength(2 + i);
  }
  expect(poll.wait(5000)).toBe(1);
  const admittedFd = list.accept(fd);
  expect(admittedFd).toBeGreaterThan(0);
  [admittedFd, fd].forEach(closeDescriptor);
});
