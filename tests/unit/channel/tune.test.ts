import { expect, test } from "bun:test";
import { IP, SOCKET, TCP } from "../../../syscalls/abi/socket.ts";
import { makeSocket } from "../../../syscalls/socket.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { tuneConnection } from "../../../src/channel/tune.ts";
import { Descriptors } from "../../helpers/descriptors.ts";

const AF_NETLINK = 16;

/** Milliseconds of TCP_USER_TIMEOUT. */
function userTimeout(fd: number): number {
  const { address, view } = mapScratch(8);
  view.setUint32(4, 4, true);
  syscall(NR.getsockopt, fd, IP.IPPROTO_TCP, TCP.TCP_USER_TIMEOUT, address, address + 4);
  return view.getInt32(0, true);
}

test("tcp is tuned, and whatever else a descriptor may be is left alone", () => {
  using descriptors = new Descriptors();
  for (const family of ["inet", "inet6"] as const) {
    const fd = descriptors.add(makeSocket(family));
    tuneConnection(fd, 7000);
    expect(userTimeout(fd)).toBe(7000);
  }
  const strange = descriptors.add(syscall(NR.socket, AF_NETLINK, SOCKET.SOCK_STREAM + 2, 0));
  for (const fd of [...descriptors.pair(), descriptors.event(), strange]) {
    expect(() => tuneConnection(fd, 7000)).not.toThrow();
  }
});
