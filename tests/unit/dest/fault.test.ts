import { describe, expect } from "bun:test";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { raiseEventDescriptor } from "../../../syscalls/descriptor.ts";
import { SharedEvent } from "../../../src/sync/event.ts";
import { WORD } from "../../../src/dest/shared.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { FaultBench } from "../../helpers/fault-bench.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { RamRecords } from "../../helpers/ram-records.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { pageData } from "../../fixtures/postcopy-threads.ts";
import { favourOf } from "../../../src/sync/favour.ts";
import type * as Churn from "../../fixtures/churn.ts";
import type * as Favoured from "../../fixtures/favoured.ts";

const PAGE = 4096;
const FAVOURED = import.meta.resolve("../../fixtures/favoured.ts");
const faultTest = requireOrSkip(needUserfaultfd());

/** A request for one page as it stands on the wire. */
function requestOf(block: string | undefined, page: number, length = PAGE) {
  return { kind: "pageRequest", block, start: page * PAGE, length } as const;
}

describe("a fault", () => {
  faultTest("becomes a request, and its answer on the urgent channel ends it", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const guest = await bench.guest();
    const [first, second] = bench.arriving.blocks;
    const pages: [typeof first, number, string][] = [
      [first, 5, "block0"],
      [first, 60, "block0"],
      [second, 3, "block1"],
      [first, 6, "block0"],
    ];
    for (const [block, page, named] of pages) {
      const reading = guest.call("readWord", (block?.address ?? 0) + page * PAGE + 100);
      expect(bench.request()).toEqual(requestOf(named, page));
      const data = pageData(block?.index ?? 0, page);
      channel.write(new RamRecords().page(block?.name ?? "", page * PAGE, data).bytes);
      expect(await reading).toBe(((block?.index ?? 0) << 24) + page + 1);
    }
    expect(bench.noRequest).toBe(true);
    expect(await bench.stop()).toEqual([]);
    const counters = ["faults", "faultsRemote", "faultsLocal", "pagesUrgent"] as const;
    expect(counters.map((name) => bench.count(name))).toEqual([4, 4, 0, 4]);
    // Whoever places pages knows of them.
    expect(Atomics.load(bench.arriving.shared.control, WORD.faultsFound)).toBe(4);
    expect(bench.arriving.shared.faultTimes.summary().count).toBe(4);
    expect(bench.arriving.missing).toBe(76);
  });

  const HOLDERS = { "pages are placed": 0, "those of a further channel are": 3 };
  for (const [what, index] of Object.entries(HOLDERS)) {
    faultTest(`found while ${what} hurries the thread that places them`, async () => {
      await using bench = new FaultBench();
      await using placer = await startThread<typeof Favoured>(FAVOURED);
      const { control, placingLocks } = bench.arriving.shared;
      const { thread, nice } = await placer.call("self");
      const placingLock = placingLocks.of(index);
      placingLocks.takeChannel(index, thread, nice);
      const { early, channel } = bench.urgentPair();
      await bench.start({ early: [early] });
      const guest = await bench.guest();
      placingLock.lock();
      const reading = guest.call("readWord", bench.arriving.block(0).address + 7 * PAGE);
      await waitUntil(() => placingLock.urgentWaits, "a fault thread that waits for the lock");
      const inRealTime = favourOf(control, WORD.favour) === "real-time";
      expect((await placer.call("scheduling")).policy).toBe(inRealTime ? 1 : 0);
      expect(bench.noRequest).toBe(true);
      placingLock.unlock();
      expect(bench.request()).toEqual(requestOf("block0", 7));
      expect(await placer.call("scheduling")).toMatchObject({ policy: 0, nice });
      channel.write(new RamRecords().page("block0", 7 * PAGE, pageData(0, 7)).bytes);
      expect(await reading).toBe(8);
    });
  }

  faultTest("of two threads on one page is one request", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const guests = [await bench.guest(), await bench.guest()];
    const { address } = bench.arriving.block(0);
    const reading = guests.map((guest) => guest.call("readWord", address + 9 * PAGE));
    expect(bench.request()).toEqual(requestOf("block0", 9));
    await waitUntil(() => bench.count("faults") === 2, "two faults");
    expect(bench.noRequest).toBe(true);
    channel.write(new RamRecords().zero("block0", 9 * PAGE).bytes);
    expect(await Promise.all(reading)).toEqual([0, 0]);
    expect(await bench.stop()).toEqual([]);
    expect(bench.count("pagesUrgentZero")).toBe(1);
  });

  faultTest("on a huge page asks for all of it, wherever it was touched", async () => {
    await using bench = new FaultBench({ pages: [16], pageSize: 4 * PAGE });
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const guest = await bench.guest();
    const reading = guest.call("readWord", bench.arriving.block(0).address + 10 * PAGE);
    expect(bench.request()).toEqual(requestOf("block0", 8, 4 * PAGE));
    const records = new RamRecords();
    for (let page = 8; page < 12; page++) records.page("block0", page * PAGE, pageData(0, page));
    channel.write(records.bytes);
    expect(await reading).toBe(11);
    expect(bench.arriving.received(0)).toEqual([8, 9, 10, 11]);
    expect([bench.count("faultsRemote"), bench.count("pagesAwaited")]).toEqual([1, 4]);
  });

  faultTest("on a page that has come meanwhile is only woken", async () => {
    await using bench = new FaultBench();
    const guest = await bench.guest();
    const block = bench.arriving.block(0);
    const reading = guest.call("readWord", block.address + 2 * PAGE);
    bench.arriving.memory.awaitEvent();
    // The page's placer has been faster: it has placed the page, and noted it.
    const { placer, buffer } = bench.arriving.placer(1);
    buffer.bytes.set(pageData(0, 2));
    placer.pages(block, 2 * PAGE, 0, 1);
    expect(await reading).toBe(3);
    await bench.start();
    expect(await bench.stop()).toEqual([]);
    expect(bench.noRequest).toBe(true);
    expect(bench.count("faultsRemote")).toBe(0);
  });

  faultTest("on a page that came as zeros before is no request", async () => {
    await using bench = new FaultBench();
    await bench.start();
    const guest = await bench.guest();
    const { pages } = bench.arriving;
    for (const bitmap of [pages.received[0], pages.unpopulated[0]]) bitmap?.set(33);
    expect(await guest.call("readWord", bench.arriving.block(0).address + 33 * PAGE)).toBe(0);
    expect(bench.noRequest).toBe(true);
    await bench.stop();
    expect(bench.count("faultsLocal")).toBe(1);
  });
});

describe("memory that its owner moves and unmaps", () => {
  faultTest("is asked for, and placed, where it lies by now", async () => {
    await using bench = new FaultBench();
    const { arriving } = bench;
    const [first, second] = [arriving.block(0), arriving.block(1)];
    arriving.map.move(first.address, second.address, second.length);
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const guest = await bench.guest();
    const reading = guest.call("readWord", second.address + 5 * PAGE);
    expect(bench.request()).toEqual(requestOf("block0", 5));
    channel.write(new RamRecords().page("block0", 5 * PAGE, pageData(0, 5)).bytes);
    expect(await reading).toBe(6);
  });

  faultTest("that was discarded unheard is not made up, nor faulted on for ever", async () => {
    await using bench = new FaultBench({ heard: false });
    const { address } = bench.arriving.block(0);
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early], foreign: true });
    const guest = await bench.guest();
    const reading = guest.call("readWord", address);
    expect(bench.request()).toEqual(requestOf("block0", 0));
    channel.write(new RamRecords().page("block0", 0, pageData(0, 0)).bytes);
    expect(await reading).toBe(1);
    await guest.call("discard", address, PAGE);
    const again = guest.call("readWord", address);
    expect(await bench.failure()).toMatchObject({ code: "UNHEARD_DISCARD" });
    expect(bench.noRequest).toBe(true);
    bench.arriving.memory.userfault.unregister(address, PAGE);
    await again;
  });

  faultTest("is no guest's where nothing lies, and a fault there is told by name", async () => {
    await using bench = new FaultBench();
    const { address, length } = bench.arriving.block(1);
    bench.arriving.map.unmap(address, address + length);
    await bench.start();
    const guest = await bench.guest();
    const reading = guest.call("readWord", address);
    expect(await bench.failure()).toMatchObject({ code: "UNKNOWN_FAULT" });
    bench.arriving.memory.userfault.unregister(address, length);
    expect(await reading).toBe(0);
  });
});

describe("a page that the guest discards", () => {
  faultTest("is zero from then on, and no business of the source's", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const guest = await bench.guest();
    const { address } = bench.arriving.block(0);
    await guest.call("discard", address + 4 * PAGE, 3 * PAGE);
    // The discard goes on when its event has been read, a little before it has been noted.
    await waitUntil(() => bench.count("removedPages") === 3, "the discard's effect");
    expect(bench.arriving.received(0)).toEqual([4, 5, 6]);
    expect(bench.arriving.missing).toBe(77);
    expect(await guest.call("readWords", address + 4 * PAGE, 2)).toEqual([0, 0]);
    // What the source still sends for them is dropped.
    channel.write(new RamRecords().page("block0", 6 * PAGE, pageData(0, 6)).bytes);
    await waitUntil(() => bench.count("urgentDropped") === 1, "the page that is dropped");
    expect(await guest.call("readWord", address + 6 * PAGE)).toBe(0);
    expect(bench.noRequest).toBe(true);
    expect(await bench.stop()).toEqual([]);
  });

  faultTest("while another thread waits for it lets that thread go on with zeros", async () => {
    await using bench = new FaultBench();
    const { early, channel } = bench.urgentPair();
    await bench.start({ early: [early] });
    const [reader, discarder] = [await bench.guest(), await bench.guest()];
    const { address } = bench.arriving.block(0);
    const reading = reader.call("readWord", address + 8 * PAGE);
    expect(bench.request()).toEqual(requestOf("block0", 8));
    await discarder.call("discard", address + 7 * PAGE, 2 * PAGE);
    expect(await reading).toBe(0);
    channel.write(new RamRecords().page("block0", 8 * PAGE, pageData(0, 8)).bytes);
    await waitUntil(() => bench.count("urgentDropped") === 1, "the page that is dropped");
    expect(await bench.stop()).toEqual([]);
    expect(bench.arriving.missing).toBe(78);
  });

  faultTest("on both sides of a block's end counts for each block", async () => {
    await using bench = new FaultBench();
    await bench.start();
    const guest = await bench.guest();
    await guest.call("discard", bench.arriving.block(1).address - PAGE, 2 * PAGE);
    await waitUntil(() => bench.count("removedPages") === 2, "the discard's effect");
    expect([bench.arriving.received(0), bench.arriving.received(1)]).toEqual([[63], [0]]);
    expect(Atomics.load(bench.arriving.shared.control, WORD.anyRemoved)).toBe(1);
  });
});

faultTest("faults that come in while zeros are being placed are not forgotten", async () => {
  const rounds = 300;
  await using bench = new FaultBench({ pages: [3 * rounds] });
  await bench.start();
  const [first, second, discarder] = [
    await bench.guest(),
    await bench.guest(),
    await bench.guest(),
  ];
  const { pages } = bench.arriving;
  for (const bitmap of [pages.received[0], pages.unpopulated[0]]) bitmap?.setAll();
  const { address } = bench.arriving.block(0);
  for (let round = 0; round < rounds; round++) {
    // All three at once: placing must wait for the discard, whose event comes with a new fault.
    const page = address + 3 * round * PAGE;
    const done = await Promise.all([
      first.call("readWord", page),
      discarder.call("discard", page + PAGE, PAGE),
      second.call("readWord", page + 2 * PAGE),
    ]);
    expect(done).toEqual([0, undefined, 0]);
  }
  expect(bench.noRequest).toBe(true);
});

faultTest("no page is lost, stale or made up, whatever the guest does meanwhile", async () => {
  const count = 600;
  await using bench = new FaultBench({ pages: [count] });
  const { early, channel } = bench.urgentPair();
  await bench.start({ early: [early] });
  const block = bench.arriving.block(0);
  const [listen, source] = [await bench.helper(), await bench.helper()];
  const stopFd = bench.descriptors.event();
  const answering = source.call("answerRequests", bench.main.fd, channel.fd, stopFd, [block], 1e9);
  const go = new SharedEvent();
  const fates = new SharedArrayBuffer(count * 4);
  const churnFixture = import.meta.resolve("../../fixtures/churn.ts");
  await using one = await startThread<typeof Churn>(churnFixture);
  await using other = await startThread<typeof Churn>(churnFixture);
  const order = { block, fates, go: go.shared, operations: 3000, discardEvery: 12 };
  const churning = [
    one.call("churn", { ...order, seed: 1 }),
    other.call("churn", { ...order, seed: 77 }),
  ];
  const { data, blocks, pageData: pages } = bench.arriving;
  const placing = listen.call("placeAll", { shared: data, blocks, pages }, go.shared, 8);
  go.set();
  expect(await Promise.all(churning)).toEqual([[], []]);
  await placing;
  expect(await bench.stop()).toEqual([]);
  expect(bench.arriving.missing).toBe(0);
  // Nothing is left to be asked for: every page is there, or was discarded.
  const { userfault } = bench.arriving.memory;
  for (let page = 0; page < count; page++) {
    if (new Int32Array(fates)[page] !== 0) continue;
    expect(userfault.zero(block.address + page * PAGE, PAGE)).toBe(-ERRNO.EEXIST);
  }
  raiseEventDescriptor(stopFd);
  const asked = (await answering).map(({ page }) => page);
  // Each was asked for at most once.
  expect(new Set(asked).size).toBe(asked.length);
});
