import { describe, expect } from "bun:test";
import { SOCKET } from "../../../syscalls/abi/socket.ts";
import { closeDescriptor, POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { readInto } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { makeSocket, startConnect } from "../../../syscalls/socket.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { WORD } from "../../../src/dest/shared.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { FaultBench } from "../../helpers/fault-bench.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { RamRecords } from "../../helpers/ram-records.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { pageData } from "../../fixtures/postcopy-threads.ts";

const PAGE = 4096;
const urgentTest = requireOrSkip(needUserfaultfd());
const scratch = mapScratch(16);

/** A listening socket, and how to connect to it. */
function openDoor(bench: FaultBench) {
  const { fd, address } = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
  bench.descriptors.add(fd);
  const connect = (): number => {
    const client = bench.descriptors.add(makeSocket("inet"));
    startConnect(client, address);
    const poll = new PollSet();
    poll.add(client, POLL.POLLOUT);
    expect(poll.wait(5000)).toBe(1);
    return client;
  };
  return { listenFd: fd, connect };
}

/** Waits until the other end of a connection is closed. */
function closed(fd: number): boolean {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  return poll.wait(5000) === 1 && readInto(fd, scratch.address, 16) <= 0;
}

/** Puts a page over an urgent connection and waits until it is there. */
async function deliver(bench: FaultBench, fd: number, page: number): Promise<void> {
  const records = new RamRecords().page("block0", page * PAGE, pageData(0, page), true);
  expect(writeBytes(fd, records.bytes)).toBe(records.bytes.length);
  await waitUntil(() => bench.arriving.pages.received[0]?.test(page), `page ${page}`);
}

describe("an urgent channel", () => {
  urgentTest("may be opened at any time, and several of them may be", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const connections = [door.connect(), door.connect(), door.connect()];
    for (const [page, fd] of connections.entries()) await deliver(bench, fd, page);
    await deliver(bench, connections[0]!, 9);
    expect(Atomics.load(bench.arriving.shared.control, WORD.urgentSeen)).toBe(3);
    expect(await bench.stop()).toEqual([]);
    // The thread closes them when it ends.
    for (const fd of connections) expect(closed(fd)).toBe(true);
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

  urgentTest("that is just closed is no trouble, and makes room for another", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    for (let i = 0; i < 20; i++) {
      const fd = door.connect();
      await deliver(bench, fd, i);
      bench.descriptors.close(fd);
    }
    expect(await bench.stop()).toEqual([]);
  });

  urgentTest("that breaks the format after its first page ends the migration", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    await deliver(bench, channel.fd, 3);
    channel.write(new RamRecords().raw(0x80).bytes);
    const failure: unknown = await bench.stop().catch((error: unknown) => error);
    expect(failure).toMatchObject({ name: "StreamError", code: "BAD_FLAGS" });
  });
});

describe("a stranger", () => {
  urgentTest("who speaks another language is dropped, and the guest lives on", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const source = door.connect();
    await deliver(bench, source, 1);
    const strangers = ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9\r\n", "\0\0\0\0\0\0\0\0\0"];
    for (const words of strangers) {
      const fd = door.connect();
      writeBytes(fd, new TextEncoder().encode(words));
      expect(closed(fd)).toBe(true);
    }
    await deliver(bench, source, 2);
    const warnings = await bench.stop();
    expect(warnings).toHaveLength(3);
    for (const warning of warnings) expect(warning).toStartWith("A further connection was dropped");
  });

  urgentTest("who resets the connection is dropped as well", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const stranger = door.connect();
    await waitUntil(
      () => Atomics.load(bench.arriving.shared.control, WORD.urgentSeen) === 1,
      "the stranger",
    );
    // SO_LINGER with a time of 0: closing sends a reset.
    const linger = mapScratch(8);
    linger.view.setInt32(0, 1, true);
    syscall(NR.setsockopt, stranger, SOCKET.SOL_SOCKET, 13, linger.address, 8);
    closeDescriptor(bench.descriptors.release(stranger));
    await deliver(bench, door.connect(), 4);
    expect(await bench.stop()).toEqual([
      "A further connection was dropped: The connection to the source broke",
    ]);
  });

  urgentTest("too many are turned away, those who came first stay", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    await bench.start({ listenFd: door.listenFd });
    const first = Array.from({ length: 4 }, () => door.connect());
    const late = [door.connect(), door.connect()];
    for (const fd of late) expect(closed(fd)).toBe(true);
    for (const [page, fd] of first.entries()) await deliver(bench, fd, page);
    const warning = "A further connection was turned away";
    expect(await bench.stop()).toEqual([warning, warning]);
  });

  urgentTest("who comes over and over is not let in for ever", async () => {
    await using bench = new FaultBench();
    const door = openDoor(bench);
    const { early, channel } = bench.urgentPair();
    await bench.start({ listenFd: door.listenFd, early: [early] });
    for (let i = 0; i < 100; i++) bench.descriptors.close(door.connect());
    const late = door.connect();
    await deliver(bench, channel.fd, 7);
    expect(await bench.stop()).toEqual(["Further connections are not accepted any more"]);
    const poll = new PollSet();
    poll.add(late, POLL.POLLIN);
    expect(poll.wait(0)).toBe(0);
  });
});
