import { afterEach, describe, expect, test } from "bun:test";
import { Channel, ChannelError } from "../../../src/channel/channel.ts";
import { awaitPushed, endPushed, letPushed, runPushed } from "../../../src/dest/pushed-pages.ts";
import { createDestShared, DestShared, destCountsOf, WORD } from "../../../src/dest/shared.ts";
import { DEST } from "../../../src/report/counters.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { RamRecords } from "../../helpers/ram-records.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";

const PAGE = 4096;
const BLOCKS = [{ name: "ram", index: 0, length: 16 * PAGE, pageSize: PAGE, address: 0 }];
const LINK_TIMEOUT_MS = 5000;

let descriptors = new Descriptors();
afterEach(() => {
  descriptors[Symbol.dispose]();
  descriptors = new Descriptors();
});

/** A push channel that was found, at LISTEN or before; and the source's ends of it and of the main one. */
function openPushed({ listening = true } = {}) {
  const data = createDestShared();
  const shared = new DestShared(data, 2);
  const [fd, source] = descriptors.pair();
  const [mainFd, mainSource] = descriptors.pair();
  // The thread closes its own.
  descriptors.release(fd);
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the source", bufferBytes: 16 * PAGE });
  Atomics.store(shared.control, WORD.pushOpen, 1);
  if (listening) letPushed(shared);
  const placed: number[] = [];
  const sink = {
    pages: (_: unknown, offset: number) => placed.push(offset / PAGE),
    zeros: (_: unknown, offset: number) => placed.push(offset / PAGE),
  };
  const run = (): void =>
    runPushed({
      ...{ index: 2, channel, shared, blocks: BLOCKS, sink, mainFd },
      counts: { exists: 0, retries: 0, dropped: 0 },
      linkTimeoutMs: LINK_TIMEOUT_MS,
    });
  return { data, shared, source, mainSource, stopFd, placed, run };
}

function word({ control }: DestShared, index: number): number {
  return Atomics.load(control, index);
}

/** Whether the other end of a connection is cut. */
function isCut(fd: number): boolean {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  return poll.wait(0) === 1;
}

describe("a push channel beside the main one", () => {
  test("is read up to its end, and what came on it is counted with the rest", () => {
    const { data, shared, source, mainSource, placed, run } = openPushed();
    const records = new RamRecords().page("ram", 3 * PAGE, new Uint8Array(PAGE).fill(7));
    writeBytes(source, records.zero("ram", 5 * PAGE).endOfSection().bytes);
    run();
    expect(placed).toEqual([3, 5]);
    expect([word(shared, WORD.pushOpen), word(shared, WORD.pushLost)]).toEqual([0, 0]);
    new DestShared(data).counters.add(DEST.pagesPushed, 10);
    expect(destCountsOf(data).get(DEST.pagesPushed)).toBe(11);
    expect(destCountsOf(data).get(DEST.pagesPushedZero)).toBe(1);
    expect(isCut(mainSource)).toBe(false);
    expect(() => awaitPushed(shared, LINK_TIMEOUT_MS)).not.toThrow();
  });

  test("that ends in the middle cuts the main one, and the link counts as broken", () => {
    const { shared, source, mainSource, run } = openPushed();
    writeBytes(source, new RamRecords().page("ram", 0, new Uint8Array(PAGE).fill(1)).bytes);
    descriptors.close(source);
    run();
    expect([word(shared, WORD.pushOpen), word(shared, WORD.pushLost)]).toEqual([0, 1]);
    expect(isCut(mainSource)).toBe(true);
    Atomics.store(shared.control, WORD.missing, 1);
    expect(() => awaitPushed(shared, LINK_TIMEOUT_MS)).toThrow(ChannelError);
    // The next link, which has none, is not broken by that.
    endPushed(shared, descriptors.event());
    expect(() => awaitPushed(shared, LINK_TIMEOUT_MS)).not.toThrow();
  });

  test("on which something else comes is an error of the source", () => {
    const { shared, source, run } = openPushed();
    writeBytes(source, new RamRecords().memorySize(PAGE).bytes);
    expect(run).toThrow(StreamError);
    expect(word(shared, WORD.pushOpen)).toBe(0);
  });

  test("is not read any more once the link has broken, also before LISTEN", () => {
    const { shared, source, mainSource, stopFd, placed, run } = openPushed({ listening: false });
    writeBytes(source, new RamRecords().page("ram", 0, new Uint8Array(PAGE).fill(1)).bytes);
    Atomics.store(shared.control, WORD.pushOver, 1);
    run();
    expect(placed).toEqual([]);
    expect(word(shared, WORD.pushLost)).toBe(0);
    expect(isCut(mainSource)).toBe(false);
    expect(() => endPushed(shared, stopFd)).not.toThrow();
  });

  test("that was opened and never came is waited for, and only where pages are missing", () => {
    const { shared } = openPushed();
    Atomics.store(shared.control, WORD.pushOpen, 0);
    Atomics.store(shared.control, WORD.pushAwaited, 1);
    expect(() => awaitPushed(shared, 0)).not.toThrow();
    Atomics.store(shared.control, WORD.missing, 1);
    expect(() => awaitPushed(shared, 0)).toThrow("A channel that pages are pushed on was lost");
  });
});
