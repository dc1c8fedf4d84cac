/**
 * The multifd thread against a source made by hand: what it takes before a flush and what after, and
 * whom it lets in.
 */
import { describe, expect, test } from "bun:test";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { readInto } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { DEST } from "../../../src/report/counters.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { MultifdBench, PAGE, PAGES } from "../../helpers/multifd-bench.ts";
import { MultifdPackets } from "../../helpers/multifd-packets.ts";

const page = (value: number): Uint8Array => new Uint8Array(PAGE).fill(value);

const scratch = mapScratch(16);

/** Whether the other end closes a connection. */
function isClosed(fd: number): boolean {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  return poll.wait(5000) === 1 && readInto(fd, scratch.address, 16) <= 0;
}

test("without a channel every flush is passed at once", async () => {
  await using bench = await MultifdBench.open();
  bench.start();
  for (let i = 0; i < 3; i++) bench.barrier.flush();
  bench.barrier.end();
  expect(await bench.result()).toEqual({
    ...{ channels: 0, compression: "none", descriptors: [], warnings: [] },
  });
});

for (const compression of ["none", "zlib", "zstd"] as const) {
  test(`pages of two channels (${compression}) are stored before their flush is passed`, async () => {
    await using bench = await MultifdBench.open();
    const [one, two] = [new MultifdPackets(compression), new MultifdPackets(compression)];
    const first = bench.connect(one.hello(0).sync(0).take());
    const second = bench.connect(two.hello(1).sync(1).take());
    bench.start();
    bench.barrier.flush();
    const run = [3, 4, 5].map((index) => [index * PAGE, page(index)] as const);
    bench.send(
      first,
      one
        .pages(2, "pc.ram", [...run, [PAGE, page(9)]], [0])
        .sync(4)
        .take(),
    );
    bench.send(
      second,
      two
        .pages(3, "vga.vram", [[2 * PAGE, page(2)]])
        .sync(5)
        .take(),
    );
    bench.barrier.flush();
    expect([1, 2, 3, 4, 5, 6].map((index) => bench.at(index))).toEqual([9, 0, 3, 4, 5, 0]);
    expect(bench.at(2, 1)).toBe(2);
    const { counters } = bench.shared;
    expect(counters.get(DEST.pagesMultifd)).toBe(5);
    expect(counters.get(DEST.pagesMultifdZero)).toBe(1);
    bench.barrier.end();
    const result = await bench.result();
    expect(result).toMatchObject({ channels: 2, compression, warnings: [] });
    expect(result.descriptors).toHaveLength(2);
  });
}

describe("what was sent behind a SYNC", () => {
  test("is not looked at before the flush, and then without another byte", async () => {
    await using bench = await MultifdBench.open();
    const channel = new MultifdPackets().hello(0).sync(0);
    // The same page again in the next round: in the wrong order the older one would win.
    channel.pages(1, "pc.ram", [[0, page(1)]]).sync(2);
    channel.pages(3, "pc.ram", [[0, page(2)]]).sync(4);
    bench.connect(channel.take());
    bench.start();
    bench.barrier.flush();
    await bench.normalPages(1);
    expect(bench.at(0)).toBe(1);
    bench.barrier.flush();
    await bench.normalPages(2);
    expect(bench.at(0)).toBe(2);
    bench.barrier.flush();
    bench.barrier.end();
    expect((await bench.result()).channels).toBe(1);
  });

  test("may be one more SYNC, to which no flush belongs", async () => {
    await using bench = await MultifdBench.open();
    bench.connect(new MultifdPackets().hello(0).sync(0).sync(1).take());
    bench.start();
    bench.barrier.flush();
    bench.barrier.end();
    expect((await bench.result()).channels).toBe(1);
  });
});

test("a packet that is missing is waited for, on a channel that has not been heard of", async () => {
  await using bench = await MultifdBench.open();
  bench.connect(new MultifdPackets().hello(1).sync(1).take());
  bench.start();
  bench.shared.multifdFlush.post();
  const { multifdSettled, counters } = bench.shared;
  // The channel that is known has come to its SYNC: that alone must not do.
  await waitUntil(() => counters.get(DEST.bytesMultifd) > 0, "the channel that is known");
  expect(multifdSettled.wait(0)).toBe(false);
  bench.connect(new MultifdPackets().hello(0).sync(0).take());
  await waitUntil(() => multifdSettled.wait(0), "the flush");
  bench.barrier.end();
  expect((await bench.result()).channels).toBe(2);
});

test("silent connections are kept open to the end", async () => {
  await using bench = await MultifdBench.open();
  const [accepted, preempt] = bench.descriptors.pair();
  bench.start({ early: [bench.descriptors.release(accepted)] });
  bench.barrier.flush();
  bench.barrier.end();
  const { descriptors, channels } = await bench.result();
  expect({ descriptors, channels }).toEqual({ descriptors: [accepted], channels: 0 });
  const poll = new PollSet();
  poll.add(preempt, POLL.POLLIN);
  expect(poll.wait(0)).toBe(0);
});

test("whoever comes over and over does not bar the channels' way", async () => {
  await using bench = await MultifdBench.open();
  for (let i = 0; i < 300; i++) {
    bench.connect(i % 2 === 0 ? undefined : new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  }
  bench.connect(new MultifdPackets("none").hello(0).sync(0).take());
  bench.start();
  bench.barrier.flush();
  bench.barrier.end();
  const { channels, descriptors, warnings } = await bench.result();
  expect([channels, descriptors.length]).toEqual([1, 17]);
  expect(warnings).toHaveLength(20);
});

test("strangers, and whoever comes from elsewhere, are turned away", async () => {
  await using bench = await MultifdBench.open();
  const stranger = bench.connect(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  bench.start();
  bench.barrier.flush();
  expect(isClosed(stranger)).toBe(true);
  bench.barrier.end();
  expect((await bench.result()).warnings).toEqual([
    "A further connection was turned away: it is no channel",
  ]);
  await using other = await MultifdBench.open();
  const foreign = other.connect(new MultifdPackets().hello(0).sync(0).take());
  other.start({ foreign: true });
  other.barrier.flush();
  expect(isClosed(foreign)).toBe(true);
  other.barrier.end();
  expect((await other.result()).warnings).toEqual([
    "A connection from elsewhere than the source's was turned away",
  ]);
});

interface Violation {
  name: string;
  /** What each connection says. */
  says: MultifdPackets[];
  code: string;
}

const opened = (id = 0): MultifdPackets => new MultifdPackets().hello(id).sync(id);

const VIOLATIONS: Violation[] = [
  { name: "two channels of one number", says: [opened(0), opened(0)], code: "BAD_VALUE" },
  { name: "a packet twice", says: [opened(0).sync(0)], code: "BAD_VALUE" },
  {
    name: "pages of no block",
    says: [
      opened()
        .pages(1, "no.ram", [[0, page(1)]])
        .sync(2),
    ],
    code: "UNKNOWN_BLOCK",
  },
  {
    name: "a page behind the end of its block",
    says: [
      opened()
        .pages(1, "pc.ram", [[PAGES * PAGE, page(1)]])
        .sync(2),
    ],
    code: "BAD_OFFSET",
  },
  {
    name: "pages of zeros behind the end",
    says: [
      opened()
        .pages(1, "pc.ram", [], [(PAGES - 1) * PAGE, PAGES * PAGE])
        .sync(2),
    ],
    code: "BAD_OFFSET",
  },
  {
    name: "a page at no border",
    says: [
      opened()
        .pages(1, "pc.ram", [[100, page(1)]])
        .sync(2),
    ],
    code: "BAD_OFFSET",
  },
  {
    name: "the data of QEMU before 9.0",
    says: [new MultifdPackets().hello(0).sync(0, { allocated: 128 })],
    code: "UNSUPPORTED",
  },
  {
    name: "another compression in the middle",
    says: [
      opened()
        .raw(new MultifdPackets("zlib").pages(1, "pc.ram", [[0, page(1)]]).take())
        .raw(new MultifdPackets("zstd").pages(2, "pc.ram", [[0, page(1)]]).take())
        .sync(3),
    ],
    code: "BAD_VALUE",
  },
];

for (const { name, says, code } of VIOLATIONS) {
  test(`${name}: refused by name, and every connection closed`, async () => {
    await using bench = await MultifdBench.open();
    const connections = says.map((packets) => bench.connect(packets.take()));
    bench.start();
    // The thread fails: its side of the barrier never comes, so it is met in vain.
    for (let i = 0; i < 2; i++) bench.shared.multifdFlush.post();
    expect(await bench.failure()).toMatchObject({ code });
    for (const fd of connections) expect(isClosed(fd)).toBe(true);
  });
}

test("a channel that is closed in the middle is the end of the migration", async () => {
  await using bench = await MultifdBench.open();
  const fd = bench.connect(
    opened()
      .pages(1, "pc.ram", [[0, page(1)]])
      .take(),
  );
  bench.start();
  bench.barrier.flush();
  await bench.normalPages(1);
  bench.descriptors.close(fd);
  bench.shared.multifdFlush.post();
  expect(await bench.failure()).toMatchObject({ code: "PEER_CLOSED" });
});

test("a source that is done may close its channels before that is known", async () => {
  await using bench = await MultifdBench.open();
  const packets = opened().pages(1, "pc.ram", [[0, page(1)]]);
  const fd = bench.connect(packets.sync(2).take());
  bench.start();
  bench.descriptors.close(fd);
  bench.barrier.flush();
  bench.barrier.flush();
  bench.barrier.end();
  expect(bench.at(0)).toBe(1);
  expect((await bench.result()).channels).toBe(1);
});

test("pages that come after their round was over end the migration", async () => {
  await using bench = await MultifdBench.open();
  // This one is heard of only when two flushes have been passed: nothing was missing before it.
  bench.connect(opened(0).sync(1).take());
  bench.start();
  bench.barrier.flush();
  bench.barrier.flush();
  bench.connect(
    new MultifdPackets()
      .hello(1)
      .sync(2)
      .pages(3, "pc.ram", [[0, page(1)]])
      .sync(4)
      .take(),
  );
  bench.shared.multifdFlush.post();
  expect(await bench.failure()).toMatchObject({ code: "UNEXPECTED" });
});
