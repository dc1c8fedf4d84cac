import { describe, expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import { REQUESTS_PER_WRITE_MAX, ReturnPath } from "../../../src/dest/return-path.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { readReturnPathMessage } from "../../../src/stream/return-path.ts";
import type { ReturnPathMessage } from "../../../src/stream/return-path.ts";
import { Mutex } from "../../../src/sync/mutex.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as ReturnPathWriters from "../../fixtures/return-path-writers.ts";

const PAGE = 4096;
const HUGE = 2 * 2 ** 20;

const RAM: RamBlock = { index: 0, name: "pc.ram", length: 2 ** 34, pageSize: PAGE, address: 0 };
const ROM: RamBlock = { index: 1, name: "r".repeat(255), length: HUGE, pageSize: HUGE, address: 0 };

/** A return path and the source's end of it. */
function bench(descriptors: Descriptors) {
  const [fd, peerFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the source", bufferBytes: 0 });
  const source = new Channel({ fd: peerFd, stopFd, peer: "the destination", bufferBytes: 65_536 });
  channel.timeoutMs = 5000;
  source.timeoutMs = 5000;
  return { channel, source, returnPath: new ReturnPath(channel, new Mutex()) };
}

function read(source: Channel, count: number): ReturnPathMessage[] {
  return Array.from({ length: count }, () => readReturnPathMessage(source.reader));
}

function request(block: string | undefined, start: number, length = PAGE): ReturnPathMessage {
  return { kind: "pageRequest", block, start, length };
}

describe("page requests", () => {
  test("name their block first in each write, and when it is another than before", () => {
    using descriptors = new Descriptors();
    const { source, returnPath } = bench(descriptors);
    returnPath.addRequest(RAM, 5 * PAGE);
    returnPath.addRequest(RAM, 2 ** 33);
    returnPath.addRequest(ROM, 0);
    returnPath.flushRequests();
    returnPath.addRequest(ROM, 0);
    returnPath.addRequest(RAM, 0);
    returnPath.flushRequests();
    expect(read(source, 5)).toEqual([
      request("pc.ram", 5 * PAGE),
      request(undefined, 2 ** 33),
      request(ROM.name, 0, HUGE),
      request(ROM.name, 0, HUGE),
      request("pc.ram", 0),
    ]);
  });

  test("leave in one write when they are flushed, and not before", () => {
    using descriptors = new Descriptors();
    const { channel, source, returnPath } = bench(descriptors);
    for (let page = 0; page < 40; page++) returnPath.addRequest(RAM, page * PAGE);
    expect(channel.bytesWritten).toBe(0);
    returnPath.flushRequests();
    returnPath.flushRequests();
    expect(read(source, 40).at(-1)).toEqual(request(undefined, 39 * PAGE));
    expect(source.bytesRead).toBe(channel.bytesWritten);
  });

  test("do not overflow, however many and however long they are", () => {
    using descriptors = new Descriptors();
    const { source, returnPath } = bench(descriptors);
    const count = 3 * REQUESTS_PER_WRITE_MAX;
    for (let i = 0; i < count; i++) returnPath.addRequest(i % 2 === 0 ? ROM : RAM, 0);
    returnPath.flushRequests();
    const messages = read(source, count);
    expect(messages[0]).toEqual(request(ROM.name, 0, HUGE));
    expect(messages.at(-1)).toEqual(request("pc.ram", 0));
    expect(source.reader.available).toBe(0);
  });
});

test("messages of several threads do not run into each other", async () => {
  const fixture = import.meta.resolve("../../fixtures/return-path-writers.ts");
  await using pongs = await startThread<typeof ReturnPathWriters>(fixture);
  await using requests = await startThread<typeof ReturnPathWriters>(fixture);
  using descriptors = new Descriptors();
  const { channel, source } = bench(descriptors);
  const lock = new Mutex();
  const stopFd = descriptors.event();
  const count = 2000;
  const writing = [
    pongs.call("sendPongs", channel.fd, stopFd, lock.shared, count),
    requests.call("sendRequests", channel.fd, stopFd, lock.shared, RAM, count),
  ];
  const messages = read(source, 2 * count);
  await Promise.all(writing);
  const values = messages.flatMap((message) => (message.kind === "pong" ? [message.value] : []));
  const starts = messages.flatMap((message) =>
    message.kind === "pageRequest" ? [message.start / PAGE] : [],
  );
  const all = Array.from({ length: count }, (_, i) => i);
  expect(values).toEqual(all);
  expect(starts).toEqual(all);
});
