import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SOCKET } from "../../../syscalls/abi/socket.ts";
import {
  closeDescriptor,
  POLL,
  PollSet,
  raiseEventDescriptor,
} from "../../../syscalls/descriptor.ts";
import { GatherList } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import {
  acceptConnection,
  localAddress,
  makeSocket,
  startConnect,
} from "../../../syscalls/socket.ts";
import { Channel, ChannelError, StoppedError, waitReady } from "../../../src/channel/channel.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { SharedEvent } from "../../../src/sync/event.ts";
import { waitingBytes, writeBytes } from "../../fixtures/descriptors.ts";
import { channelOver, pattern } from "../../helpers/channel-over.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as ChannelEndsFixture from "../../fixtures/channel-ends.ts";
import type * as DescriptorsFixture from "../../fixtures/descriptors.ts";

const ENDS = import.meta.resolve("../../fixtures/channel-ends.ts");
const DESCRIPTORS = import.meta.resolve("../../fixtures/descriptors.ts");

const startEnd = () => startThread<typeof ChannelEndsFixture>(ENDS);
const startWriter = () => startThread<typeof DescriptorsFixture>(DESCRIPTORS);

/** What `action` throws, which must be a ChannelError. */
function failureOf(action: () => unknown): ChannelError {
  try {
    action();
  } catch (error) {
    if (error instanceof ChannelError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}

test("the end of a channel is known when the peer has closed, and nothing is unread", () => {
  using descriptors = new Descriptors();
  const { channel, peerFd } = channelOver(descriptors);
  writeBytes(peerFd, pattern(10));
  expect(channel.reader.ended).toBe(false);
  descriptors.close(peerFd);
  expect(channel.reader.ended).toBe(false);
  expect(channel.reader.take(10)).toEqual(pattern(10));
  expect(channel.reader.ended).toBe(true);
});

test("a peer that stays and says nothing does not end, and is not waited for for ever", () => {
  using descriptors = new Descriptors();
  const { channel } = channelOver(descriptors);
  channel.timeoutMs = 20;
  expect(failureOf(() => channel.reader.ended).code).toBe("PEER_SILENT");
});

describe("what arrives", () => {
  test("is the same byte by byte, in pieces, and all at once", async () => {
    await using writer = await startWriter();
    const sizes = fc.oneof(
      fc.constant(Array<number>(300).fill(1)),
      fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 20 }),
      fc.constant([]),
    );
    const reads = fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(sizes, reads, async (pieces, counts) => {
        using descriptors = new Descriptors();
        const { channel, peerFd } = channelOver(descriptors);
        const bytes = pattern(counts.reduce((sum, count) => sum + count, 0));
        const writing = writer.call("dribble", peerFd, channel.fd, bytes, pieces);
        const got = counts.map((count) => channel.reader.take(count));
        expect(Buffer.concat(got).equals(Buffer.from(bytes))).toBe(true);
        expect(channel.reader.offset).toBe(bytes.length);
        expect(channel.bytesRead).toBe(bytes.length);
        await writing;
      }),
      { numRuns: 15 },
    );
  });

  test("may be far more than the buffer holds", async () => {
    await using writer = await startWriter();
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    const bytes = pattern(200_000);
    const writing = writer.call("dribble", peerFd, channel.fd, bytes, [5000, 1, 4095, 4096, 4097]);
    const { reader } = channel;
    for (let at = 0; at < bytes.length;) {
      const count = Math.min(bytes.length - at, 1 + ((at * 13) % 4096));
      reader.ensure(count);
      const part = reader.bytes.subarray(reader.pos, reader.pos + count);
      expect(Buffer.from(part).equals(bytes.subarray(at, at + count))).toBe(true);
      reader.pos += count;
      at += count;
      expect(reader.offset).toBe(at);
    }
    await writing;
  });
});

describe("a peer that", () => {
  test("has closed is named, and what it sent before is still read", () => {
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    writeBytes(peerFd, pattern(6));
    descriptors.close(peerFd);
    expect(channel.reader.take(4)).toEqual(pattern(4));
    const failure = failureOf(() => channel.reader.u32());
    expect(failure).toMatchObject({
      code: "PEER_CLOSED",
      message: "The connection was closed by the source",
    });
  });

  test("has closed takes nothing any more", () => {
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    descriptors.close(peerFd);
    const failure = failureOf(() => channel.write(pattern(1)));
    expect(failure.code).toBe("PEER_CLOSED");
    expect(failure.cause).toMatchObject({ syscall: "write", code: "EPIPE" });
  });

  test("resets the connection is gone as well, with the reason", () => {
    using descriptors = new Descriptors();
    const listener = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
    descriptors.add(listener.fd);
    const peerFd = makeSocket("inet");
    startConnect(peerFd, localAddress(listener.fd));
    const poll = new PollSet();
    poll.add(listener.fd, POLL.POLLIN);
    poll.wait(5000);
    const fd = descriptors.add(acceptConnection(listener.fd));
    const stopFd = descriptors.event();
    const channel = new Channel({ fd, stopFd, peer: "the source", bufferBytes: 4096 });
    channel.timeoutMs = 8_000;
    // SO_LINGER with a time of 0: closing sends a reset.
    const linger = mapScratch(8);
    linger.view.setInt32(0, 1, true);
    syscall(NR.setsockopt, peerFd, SOCKET.SOL_SOCKET, 13, linger.address, 8);
    closeDescriptor(peerFd);
    const failure = failureOf(() => channel.reader.u8());
    expect(failure).toMatchObject({
      code: "PEER_CLOSED",
      message: "The connection to the source broke",
    });
    expect(failure.cause).toMatchObject({ syscall: "read", code: "ECONNRESET" });
  });

  test("is silent for too long is given up, reading and writing", () => {
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    channel.timeoutMs = 40;
    const began = performance.now();
    expect(failureOf(() => channel.reader.u8())).toMatchObject({ code: "PEER_SILENT" });
    expect(performance.now() - began).toBeGreaterThanOrEqual(39);
    const failure = failureOf(() => channel.write(new Uint8Array(8 * 2 ** 20)));
    expect(failure.code).toBe("PEER_SILENT");
    expect(failure.message).toContain("the source took nothing");
    expect(channel.bytesWritten).toBeGreaterThan(0);
    expect(waitingBytes(peerFd)).toBe(channel.bytesWritten);
  });

  test("says a little now and then is not silent", async () => {
    await using writer = await startWriter();
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    channel.timeoutMs = 500;
    // Each byte comes within the limit, all of them together do not.
    const writing = writer.call("dribble", peerFd, channel.fd, pattern(30), Array(30).fill(1), 20);
    const began = performance.now();
    expect(channel.reader.take(30)).toEqual(pattern(30));
    expect(performance.now() - began).toBeGreaterThan(channel.timeoutMs);
    await writing;
  });
});

describe("a stop", () => {
  test("ends every wait at once", () => {
    using descriptors = new Descriptors();
    const { channel, stopFd } = channelOver(descriptors);
    raiseEventDescriptor(stopFd);
    expect(() => channel.reader.u8()).toThrow(StoppedError);
    expect(() => channel.write(new Uint8Array(8 * 2 ** 20))).toThrow(StoppedError);
  });

  test("reaches a thread that waits already", async () => {
    await using end = await startEnd();
    using descriptors = new Descriptors();
    const [fd] = descriptors.pair();
    const stopFd = descriptors.event();
    const ready = new SharedEvent();
    const reading = end.call("readInVain", fd, stopFd, ready.shared);
    await waitUntil(() => ready.isSet, "a thread that reads");
    raiseEventDescriptor(stopFd);
    expect(await reading).toBe("StoppedError: Stopped on request");
  });

  test("ends a wait for a descriptor, whose limit is kept otherwise", () => {
    using descriptors = new Descriptors();
    const [fd, peerFd] = descriptors.pair();
    const stopFd = descriptors.event();
    expect(waitReady(fd, POLL.POLLIN, stopFd, 15)).toBe(false);
    writeBytes(peerFd, pattern(1));
    expect(waitReady(fd, POLL.POLLIN, stopFd, 5000)).toBe(true);
    raiseEventDescriptor(stopFd);
    expect(() => waitReady(fd, POLL.POLLIN, stopFd, 5000)).toThrow(StoppedError);
  });
});

describe("another thread", () => {
  test("reads on where this one stopped, unread bytes first", async () => {
    await using end = await startEnd();
    using descriptors = new Descriptors();
    const { channel, peerFd, stopFd } = channelOver(descriptors, 8192);
    const bytes = pattern(20_000);
    writeBytes(peerFd, bytes.subarray(0, 10_000));
    const first = channel.reader.take(8_500);
    const position = channel.position();
    expect(position.end - position.pos).toBeGreaterThan(0);
    expect(position.base + position.pos).toBe(8_500);
    writeBytes(peerFd, bytes.subarray(10_000));
    const { bytes: rest, offset } = await end.call("readOn", channel.fd, stopFd, position, 11_500);
    expect(Buffer.concat([first, rest]).equals(Buffer.from(bytes))).toBe(true);
    expect(offset).toBe(20_000);
  });
});

describe("what is written", () => {
  test("arrives whole and in order, from a gather list and from any bytes", async () => {
    await using end = await startEnd();
    using descriptors = new Descriptors();
    const { channel, peerFd, stopFd } = channelOver(descriptors);
    const bytes = pattern(700_000);
    const scratch = mapScratch(bytes.length);
    scratch.bytes.set(bytes);
    const peer = new Channel({ fd: peerFd, stopFd, peer: "the source", bufferBytes: 65_536 });
    const reading = end.call("readOn", peerFd, stopFd, peer.position(), 3 + 700_000 + 150_000);
    channel.write(Uint8Array.of(1, 2, 3));
    const list = new GatherList(3);
    list.add(scratch.address, 1);
    list.add(scratch.address + 1, 600_000);
    list.add(scratch.address + 600_001, 99_999);
    channel.writeAll(list);
    channel.write(bytes.subarray(0, 150_000));
    const { bytes: got } = await reading;
    const expected = Buffer.concat([Uint8Array.of(1, 2, 3), bytes, bytes.subarray(0, 150_000)]);
    expect(Buffer.from(got).equals(expected)).toBe(true);
    expect(channel.bytesWritten).toBe(expected.length);
  });
});
