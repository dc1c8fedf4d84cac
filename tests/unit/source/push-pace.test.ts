import { expect, test } from "bun:test";
import { IP, TCP } from "../../../syscalls/abi/socket.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { Channel } from "../../../src/channel/channel.ts";
import { PushPace } from "../../../src/source/push-pace.ts";
import { Descriptors } from "../../helpers/descriptors.ts";

const LIMITED = 128 * 1024;
const LOOK_MS = 50;
const scratch = mapScratch(16);

/** What may lie unsent in a socket; 0: as much as it takes. */
function unsentLimit(fd: number): number {
  const { address, view } = scratch;
  view.setUint32(8, 4, true);
  const name = TCP.TCP_NOTSENT_LOWAT;
  expect(syscall(NR.getsockopt, fd, IP.IPPROTO_TCP, name, address, address + 8)).toBe(0);
  return view.getUint32(0, true);
}

function channelOver(descriptors: Descriptors, fd: number): Channel {
  return new Channel({ fd, stopFd: descriptors.event(), peer: "the destination", bufferBytes: 0 });
}

test("little of the push is unsent while pages are requested, from the first request on", () => {
  using descriptors = new Descriptors();
  const [fd] = descriptors.tcpPair();
  let now = 0;
  const pace = new PushPace(channelOver(descriptors, fd), true, () => now);
  pace.keep(0);
  expect(unsentLimit(fd)).toBe(0);
  pace.keep(1);
  expect(unsentLimit(fd)).toBe(LIMITED);
  // A second without one, in looks of 50 ms.
  for (let look = 1; look <= 19; look++) {
    now += LOOK_MS;
    pace.keep(1);
  }
  expect(unsentLimit(fd)).toBe(LIMITED);
  now += LOOK_MS;
  pace.keep(1);
  expect(unsentLimit(fd)).toBe(0);
  pace.keep(2);
  expect(unsentLimit(fd)).toBe(LIMITED);
});

test("what is unsent is let be where the peer takes a page twice, or is not reached over TCP", () => {
  using descriptors = new Descriptors();
  const [fd] = descriptors.tcpPair();
  new PushPace(channelOver(descriptors, fd), false).keep(1);
  expect(unsentLimit(fd)).toBe(0);
  const [unixSocket] = descriptors.pair();
  new PushPace(channelOver(descriptors, unixSocket), true).keep(1);
});
