import { expect, test } from "bun:test";
import { IP, TCP } from "../../../syscalls/abi/socket.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { Channel } from "../../../src/channel/channel.ts";
import { PushPace } from "../../../src/source/push-pace.ts";
import type { TcpState } from "../../../syscalls/socket.ts";
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

const MB = 1e6;
const CHUNK_BYTES = 0.5 * MB;
/** A round trip with a queue before it, and one without. */
const QUEUED_US = 5000;
const FREE_US = 100;

/** A connection that is as it is said to be, over which a push goes that waits all the time. */
class Connection {
  readonly #channel = { fd: 7, waitedMs: 0, bytesWritten: 0 };
  #now = 0;
  #state: TcpState | undefined = { ackedBytes: 0, rttUs: FREE_US, minRttUs: FREE_US };
  /** Paces and limits of what is unsent, as they were set; 0: none. */
  readonly paces: number[] = [];
  readonly unsent: number[] = [];
  readonly pace = new PushPace(this.#channel as unknown as Channel, true, () => this.#now, {
    readTcpState: () => this.#state,
    limitPace: (_, bytesPerSecond) => void this.paces.push(Math.round(bytesPerSecond)),
    limitUnsent: (_, bytes) => void this.unsent.push(bytes),
  });

  /** Sends a chunk in `ms`, of which `ackedBytes` arrive. */
  send(requests: number, ms: number, ackedBytes: number, rttUs = QUEUED_US): void {
    this.#now += ms;
    this.#channel.waitedMs += ms;
    this.#channel.bytesWritten += CHUNK_BYTES;
    const acked = (this.#state?.ackedBytes ?? 0) + ackedBytes;
    this.#state = { ackedBytes: acked, rttUs, minRttUs: FREE_US };
    this.pace.keep(requests);
  }

  /** It cannot be looked at any more. */
  lose(): void {
    this.#state = undefined;
    this.#now += LOOK_MS;
    this.pace.keep(3);
  }

  /** A request, and two looks that see a queue on the way of 100 MB/s. */
  queue(): void {
    this.send(1, LOOK_MS, 5 * MB);
    this.send(2, LOOK_MS, 5 * MB);
    this.send(3, LOOK_MS, 5 * MB);
  }
}

test("the push is paced after a queue, and no more once nobody asks for pages", () => {
  const connection = new Connection();
  connection.queue();
  expect(connection.paces).toEqual([95 * MB]);
  for (let look = 0; look < 20; look++) connection.send(3, LOOK_MS, 4.7 * MB);
  expect(connection.paces.at(-1)).toBe(0);
  expect(connection.unsent).toEqual([LIMITED, 0]);
  const { length } = connection.paces;
  connection.pace.end();
  expect(connection.paces).toHaveLength(length);
});

test("the pace ends with the push, and where the connection cannot be looked at any more", () => {
  for (const end of [
    (connection: Connection) => connection.pace.end(),
    (connection: Connection) => connection.lose(),
  ]) {
    const connection = new Connection();
    connection.queue();
    end(connection);
    expect(connection.paces).toEqual([95 * MB, 0]);
    expect(connection.unsent).toEqual([LIMITED, 0]);
  }
});

test("a chunk that was blocked for seconds sets no pace, and ends the one there is", () => {
  const blocked = new Connection();
  blocked.send(1, LOOK_MS, 0);
  for (let look = 2; look < 5; look++) blocked.send(look, 3000, 0.1 * MB);
  expect(blocked.paces).toEqual([]);
  const paced = new Connection();
  paced.queue();
  paced.send(4, 3000, 0.1 * MB);
  expect(paced.paces).toEqual([95 * MB, 0]);
});

test("no pace is set under which a chunk takes longer than a look may", () => {
  const connection = new Connection();
  connection.send(1, LOOK_MS, 0);
  for (let look = 2; look < 9; look++) connection.send(look, LOOK_MS, 100);
  expect(connection.paces).toEqual([]);
});

test("a link on which nothing comes through keeps its pace", () => {
  const connection = new Connection();
  connection.queue();
  for (let look = 4; look < 12; look++) connection.send(look, LOOK_MS, 0);
  expect(connection.paces).toEqual([95 * MB]);
});
