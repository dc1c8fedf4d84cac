import { describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { SOCKET } from "../../../syscalls/abi/socket.ts";
import { closeDescriptor, POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { readInto } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { localAddress, makeSocket, remoteAddress } from "../../../syscalls/socket.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { WORD } from "../../../src/dest/shared.ts";
import { channelHead } from "../../../src/stream/further-channel.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { BENCH_TOKEN, FaultBench } from "../../helpers/fault-bench.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { RamRecords } from "../../helpers/ram-records.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { pageData, PUSH_FOUND } from "../../fixtures/postcopy-threads.ts";

const PAGE = 4096;
const urgentTest = requireOrSkip(needUserfaultfd());
const scratch = mapScratch(16);

/** A listening socket, and how to connect to it. */
function openDoor(bench: FaultBench) {
  const { fd, address } = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
  bench.descriptors.add(fd);
  return { listenFd: fd, connect: () => bench.descriptors.connect(address) };
}

/** Waits until the other end of a connection is closed. */
function closed(fd: number): boolean {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  return poll.wait(5000) === 1 && readInto(fd, scratch.address, 16) <= 0;
}

/** Writes to a connection at once. */
function say(fd: number, bytes: Uint8Array): void {
  expect(writeBytes(fd, bytes)).toBe(bytes.length);
}

/** Puts a page over an urgent connection and waits until it is there. */
async function deliver(bench: FaultBench, fd: number, page: number): Promise<void> {
  const records = new RamRecords().page("block0", page * PAGE, pageData(0, page), true);
  say(fd, records.bytes);
  await waitUntil(() => bench.arriving.pages.received[0]?.test(page), `page ${page}`);
}

const HEAD = channelHead("urgent", BENCH_TOKEN);
const PUSH_HEAD = channelHead("push", BENCH_TOKEN);

/** Whether the kernel probes this connection from its other end (timer 2 of proc_net_tcp.txt). */
function hasKeepalive(client: number): boolean {
  const [near, far] = [localAddress(client), remoteAddress(client)].map((address) => {
    if (address.family !== "inet") throw new Error("the client is not on IPv4");
    return `:${address.port.toString(16).toUpperCase().padStart(4, "0")}`;
  });
  if (near === undefined || far === undefined) throw new Error("no addresses");
  const lines = readFileSync("/proc/net/tcp", "latin1").split("\n");
  const words = lines.map((line) => line.trim().split(/\s+/));
  // Others on this host may have either port to somebody else.
  const accepted = words.find(
    ([, local, remote]) => local?.endsWith(far) && remote?.endsWith(near),
  );
  return accepted?.[5]?.startsWith("02:") === true;
}

/** Whether nothing has been sent to a connection, nor has it been closed. */
function quiet(fd: number): boolean {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  return poll.wait(0) === 0;
}

describe("an urgent channel", () => {
  urgentTest("may be opened at any time, its head in pieces", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const source = door.connect();
    for (let i = 0; i < HEAD.length; i++) say(source, HEAD.subarray(i, i + 1));
    await deliver(bench, source, 1);
    await deliver(bench, source, 9);
    expect(await bench.stop()).toEqual([]);
    // The thread closes it when it ends.
    expect(closed(source)).toBe(true);
  });

  urgentTest("has its peer probed, as the main one has", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const source = door.connect();
    say(source, HEAD);
    await deliver(bench, source, 1);
    expect(hasKeepalive(source)).toBe(true);
    expect(await bench.stop()).toEqual([]);
  });

  urgentTest("ends with EOS, which the listen thread is told of", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const { control } = bench.arriving.shared;
    const records = new RamRecords().page("block0", 0, pageData(0, 0)).endOfSection();
    channel.write(records.bytes.subarray(0, -1));
    await waitUntil(() => bench.arriving.pages.received[0]?.test(0), "the page");
    expect(Atomics.load(control, WORD.urgentEnded)).toBe(0);
    channel.write(records.bytes.subarray(-1));
    expect(closed(channel.fd)).toBe(true);
    expect(Atomics.load(control, WORD.urgentEnded)).toBe(1);
    expect(await bench.stop()).toEqual([]);
  });

  for (const word of ["identityBound", "urgentChosen"] as const) {
    urgentTest(`brings no page while ${word} is not set: it may be another guest's`, async () => {
      await using bench = new FaultBench();
      const { early, channel } = bench.urgentPair();
      await bench.start({ early: [early], bound: word !== "identityBound" });
      const { pages, shared } = bench.arriving;
      if (word === "urgentChosen") {
        await deliver(bench, channel.fd, 2);
        // Its source is turned away.
        Atomics.store(shared.control, WORD.urgentChosen, 0);
      }
      say(channel.fd, new RamRecords().page("block0", 3 * PAGE, pageData(0, 3), true).bytes);
      expect(closed(channel.fd)).toBe(true);
      expect(pages.received[0]?.test(3)).toBe(false);
      const why = "It brought a page that nobody had asked for";
      expect(await bench.stop()).toEqual([`The urgent channel was lost: ${why}`]);
    });
  }

  urgentTest("that breaks the format ends the migration", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    await deliver(bench, channel.fd, 3);
    channel.write(new RamRecords().raw(0x80).bytes);
    const failure: unknown = await bench.stop().catch((error: unknown) => error);
    expect(failure).toMatchObject({ name: "StreamError", code: "BAD_FLAGS" });
  });

  urgentTest("that is reset is lost, and the guest lives on", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const source = door.connect();
    say(source, HEAD);
    await deliver(bench, source, 4);
    // SO_LINGER with a time of 0: closing sends a reset.
    const linger = mapScratch(8);
    linger.view.setInt32(0, 1, true);
    syscall(NR.setsockopt, source, SOCKET.SOL_SOCKET, 13, linger.address, 8);
    closeDescriptor(bench.descriptors.release(source));
    expect(await bench.stop()).toEqual([
      "The urgent channel was lost: The connection to the source broke",
    ]);
  });

  urgentTest("is awaited by nobody where the source has chosen none", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    const { early, channel } = bench.urgentPair();
    const late = door.connect();
    say(late, HEAD);
    await bench.start({ listenFd: door.listenFd, early: [early], chosen: false });
    expect(closed(channel.fd)).toBe(true);
    expect(await bench.stop()).toEqual([]);
    expect(quiet(late)).toBe(true);
  });
});

describe("a push channel", () => {
  urgentTest("is found beside the urgent one, as often as the source has opened one", async () => {
    await using bench = new FaultBench();
    const { control } = bench.arriving.shared;
    const door = openDoor(bench);
    Atomics.store(control, WORD.pushAwaited, 2);
    await bench.start({ listenFd: door.listenFd });
    const connections = [0, 1].map(() => door.connect());
    for (const fd of connections) say(fd, PUSH_HEAD);
    for (const fd of connections) expect(closed(fd)).toBe(true);
    const tooMany = door.connect();
    say(tooMany, PUSH_HEAD);
    expect(closed(tooMany)).toBe(true);
    // Others are still awaited until all are there.
    const source = door.connect();
    say(source, HEAD);
    await deliver(bench, source, 2);
    expect(await bench.stop()).toEqual([
      ...[PUSH_FOUND, PUSH_FOUND],
      "A further connection was turned away: it is one too many",
    ]);
    expect([WORD.pushAwaited, WORD.pushOpen].map((at) => Atomics.load(control, at))).toEqual([
      0, 2,
    ]);
  });

  urgentTest("that comes when the link has broken is closed, and counts as ended", async () => {
    await using bench = new FaultBench();
    const { control } = bench.arriving.shared;
    const door = openDoor(bench);
    Atomics.store(control, WORD.pushAwaited, 1);
    Atomics.store(control, WORD.pushOver, 1);
    await bench.start({ listenFd: door.listenFd });
    const late = door.connect();
    say(late, PUSH_HEAD);
    expect(closed(late)).toBe(true);
    expect(await bench.stop()).toEqual([]);
    expect(Atomics.load(control, WORD.pushOpen)).toBe(0);
  });
});

describe("a stranger", () => {
  /** All that a source may send, but for the head. */
  const forged = new RamRecords().page("block0", 5 * PAGE, pageData(0, 77), true).endOfSection();

  const strangers: Readonly<Record<string, Uint8Array>> = {
    "who speaks another language": new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"),
    "who sends a page and EOS": forged.bytes,
    "who sends EOS": new RamRecords().endOfSection().bytes,
    "who guesses the token": Buffer.concat([channelHead("urgent", BENCH_TOKEN ^ 1), forged.bytes]),
  };
  for (const [who, words] of Object.entries(strangers)) {
    urgentTest(`${who} changes nothing`, async () => {
      await using bench = new FaultBench();
      const door = openDoor(bench);
      await bench.start({ listenFd: door.listenFd });
      const stranger = door.connect();
      say(stranger, words);
      expect(closed(stranger)).toBe(true);
      const source = door.connect();
      say(source, HEAD);
      await deliver(bench, source, 2);
      expect(await bench.stop()).toEqual([
        who === "who guesses the token"
          ? "A further connection was turned away: it does not know this migration's token"
          : "A further connection was turned away: it is no channel of a migration",
      ]);
      expect(bench.arriving.received(0)).toEqual([2]);
      expect(Atomics.load(bench.arriving.shared.control, WORD.urgentEnded)).toBe(0);
    });
  }

  urgentTest(
    "is sent away once the source's channel is there, and later ones stay out",
    async () => {
      await using bench = new FaultBench();
      const door = openDoor(bench);
      const [early, silent] = bench.descriptors.pair();
      await bench.start({ listenFd: door.listenFd, early: [bench.descriptors.release(early)] });
      const before = Array.from({ length: 4 }, () => door.connect());
      const source = door.connect();
      say(source, HEAD);
      await deliver(bench, source, 1);
      for (const fd of [silent, ...before]) expect(closed(fd)).toBe(true);
      const late = door.connect();
      say(late, HEAD);
      await deliver(bench, source, 2);
      expect(await bench.stop()).toEqual([]);
      expect(quiet(late)).toBe(true);
    },
  );

  urgentTest("who stays silent makes room for the next, the oldest first", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const silent: number[] = [];
    // One by one: the queue of the socket has no more room than there are seats.
    for (let i = 0; i < 18; i++) silent.push(door.connect());
    for (const fd of silent.slice(0, 2)) expect(closed(fd)).toBe(true);
    for (const fd of silent.slice(2)) expect(quiet(fd)).toBe(true);
    const source = door.connect();
    say(source, HEAD);
    await deliver(bench, source, 3);
    const warning = "More than 16 silent connections: the oldest was dropped";
    expect(await bench.stop()).toEqual([warning, warning, warning]);
  });

  urgentTest("who comes over and over does not bar the source's way", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    for (let i = 0; i < 300; i++) {
      const fd = door.connect();
      say(fd, HEAD.toReversed());
      expect(closed(fd)).toBe(true);
      bench.descriptors.close(fd);
    }
    const source = door.connect();
    say(source, HEAD);
    await deliver(bench, source, 3);
    // They are not told of one by one either.
    expect(await bench.stop()).toHaveLength(20);
  });
});

urgentTest("a listening socket that fails is left alone, and faults are served on", async () => {
  await using bench = new FaultBench();
  // A socket that does not listen: poll(2) finds it ready at once, accept4(2) fails for ever.
  const broken = bench.descriptors.add(makeSocket("inet"));
  await bench.start({ listenFd: broken });
  const guest = await bench.guest();
  const reading = guest.call("readWord", bench.arriving.block(0).address);
  expect(bench.request()).toMatchObject({ kind: "pageRequest", start: 0 });
  const { placer } = bench.arriving.placer(1);
  placer.zeros(bench.arriving.block(0), 0, 1);
  expect(await reading).toBe(0);
  expect(await bench.stop()).toEqual(["Further connections are not accepted any more (EINVAL)"]);
});
