import { describe, expect, test } from "bun:test";
import { WORD } from "../../../src/source/shared.ts";
import { oweDirty, oweEverything } from "../../../src/source/owed.ts";
import { sendOwed } from "../../../src/source/ending.ts";
import { sendAhead } from "../../../src/source/early-pages.ts";
import { pushOwed } from "../../../src/source/postcopy.ts";
import { RequestServer } from "../../../src/source/request-server.ts";
import type { Compression } from "../../../src/source/compression-chooser.ts";
import { RamWriter } from "../../../src/source/ram-writer.ts";
import { readCommand } from "../../../src/stream/command.ts";
import { FEATURE, PING_WORKING_SET } from "../../../src/stream/hello.ts";
import { readSectionHeader } from "../../../src/stream/section.ts";
import { Channel } from "../../../src/channel/channel.ts";
import { SOURCE } from "../../../src/report/counters.ts";
import {
  createMovedPages,
  KIND,
  MOVED_BINS,
  openMovedRuns,
} from "../../../src/report/moved-pages.ts";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { SharedEvent } from "../../../src/sync/event.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { PageReceiver } from "../../helpers/page-receiver.ts";
import type { Received } from "../../helpers/page-receiver.ts";
import { pageWord, SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as PageReceivers from "../../fixtures/page-receivers.ts";
import type * as SendingThreads from "../../fixtures/sending-threads.ts";
import type { Wish } from "../../fixtures/sending-threads.ts";

const PAGE = 4096;
const RECEIVERS = import.meta.resolve("../../fixtures/page-receivers.ts");
const SENDERS = import.meta.resolve("../../fixtures/sending-threads.ts");

const startReceiver = () => startThread<typeof PageReceivers>(RECEIVERS);
const startSender = () => startThread<typeof SendingThreads>(SENDERS);

/** Names of pages, for comparing sets of them. */
function names(pages: readonly Received[]): string[] {
  return pages.map(({ block, page }) => `${block}:${page}`);
}

/** Every page came once, from one channel or the other, with the bytes that it has. */
function expectEachOnce(pages: readonly Received[], expected: readonly string[]): void {
  expect(names(pages).toSorted()).toEqual([...expected].toSorted());
  const wrong = pages.filter(({ block, page, word, zero }) => {
    return word !== pageWord(block, page) || zero !== (word === 0);
  });
  expect(wrong).toEqual([]);
}

/** Wishes of a guest that jumps about, with repeats. */
function wishesFor(counts: readonly number[], total: number, seed: number): Wish[] {
  let state = seed;
  const next = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  return Array.from({ length: total }, () => {
    const block = next(counts.length);
    const pages = counts[block] ?? 1;
    const hostPage = next(pages);
    // QEMU asks for one page at a time, but may ask for more.
    const count = next(10) === 0 ? Math.min(pages - hostPage, 1 + next(5)) : 1;
    return [block, hostPage, count];
  });
}

describe("push and requests together", () => {
  type Case = [name: string, counts: number[], perHostPage: number, urgent: boolean, runs: boolean];
  const CASES: Case[] = [
    ["on one channel", [2000, 300], 1, false, false],
    ["on two channels", [2000, 300], 1, true, false],
    ["on one channel, with huge pages", [1024, 64], 16, false, false],
    ["on two channels, with pages of 2 MiB", [2048, 512], 512, true, false],
    ["on one channel, in runs", [2000, 300], 1, false, true],
    ["on two channels, in runs", [2000, 300], 1, true, true],
    ["on two channels, in runs of 2 MiB", [2048, 512], 512, true, true],
  ];

  test.each(CASES)("send every page once %s", async (_name, counts, perHostPage, urgent, runs) => {
    await using pusher = await startSender();
    await using server = await startSender();
    await using main = await startReceiver();
    await using other = await startReceiver();
    using descriptors = new Descriptors();
    // Never unmapped: threads that a failure left behind may still read it.
    const guest = new SendingGuest(counts, perHostPage * PAGE);
    const stopFd = descriptors.event();
    const [fd, mainFd] = descriptors.pair();
    const [urgentFd, urgentPeer] = descriptors.pair();
    const { shared, blocks } = guest;
    if (urgent) Atomics.store(shared.control, WORD.urgentFd, urgentFd);
    if (runs) Atomics.store(shared.control, WORD.pageRuns, 1);

    // All but every seventh host page is owed.
    const expected: string[] = [];
    for (const block of blocks) {
      const pages = counts[block.index] ?? 0;
      for (let page = 0; page < pages; page++) {
        if (Math.floor(page / perHostPage) % 7 === 5) continue;
        shared.dirty[block.index]?.set(page);
        expected.push(`${block.index}:${page}`);
      }
    }
    const context = sourceContext(blocks, shared, writing(fd, stopFd), stopFd);
    oweDirty(context);

    const [go, next] = [new SharedEvent(), new SharedEvent()];
    const order = { shared: guest.data, blocks, fd, stopFd, go: go.shared };
    const wishes = wishesFor(
      counts.map((count) => Math.ceil(count / perHostPage)),
      400,
      perHostPage,
    );
    const receiving = [
      main.call("receiveMain", mainFd, stopFd, blocks, Infinity),
      urgent
        ? other.call("receiveUrgent", urgentPeer, stopFd, blocks)
        : { pages: [], torn: [], sections: [] },
    ];
    const [, served] = await Promise.all([
      pusher.call("push", { ...order, go: next.shared }),
      server.call("serve", order, wishes, next.shared),
      go.set(),
    ]);
    const [onMain, onUrgent] = await Promise.all(receiving);
    if (onMain === undefined || onUrgent === undefined) throw new Error("nothing was received");
    expectEachOnce([...onMain.pages, ...onUrgent.pages], expected);
    expect([...onMain.torn, ...onUrgent.torn]).toEqual([]);
    expect(onMain.sections.slice(-2)).toEqual(["end", "eof"]);
    expect(Atomics.load(shared.control, WORD.owed)).toBe(0);
    const requested = served.reduce((sum, pages) => sum + pages, 0) * perHostPage;
    const { counters } = shared;
    expect(counters.get(SOURCE.pagesRequested) + counters.get(SOURCE.pagesRequestedZero)).toBe(
      requested,
    );
    expect(requested).toBeGreaterThan(0);
    if (urgent) expect(onUrgent.pages).toHaveLength(requested);
    expectWhole([...onMain.pages], perHostPage);
    expectWhole([...onUrgent.pages], perHostPage);
  });

  /** The target pages of each host page came one behind the other, from the first to the last. */
  function expectWhole(pages: readonly Received[], perHostPage: number): void {
    for (let i = 0; i < pages.length; i += perHostPage) {
      const first = pages[i];
      const part = pages.slice(i, i + perHostPage);
      expect((first?.page ?? -1) % perHostPage).toBe(0);
      const broken = part.some(({ block, page }, n) => {
        return block !== first?.block || page !== first.page + n;
      });
      expect(broken).toBe(false);
    }
  }
});

/** Whether the socket takes no more for now. */
function isFull(fd: number): boolean {
  const poll = new PollSet();
  poll.add(fd, POLL.POLLOUT);
  return poll.wait(0) === 0;
}

test("on one channel a request waits for the piece of the push under way, and no other", async () => {
  const count = 4000;
  await using pusher = await startSender();
  await using server = await startSender();
  await using main = await startReceiver();
  using descriptors = new Descriptors();
  // Never unmapped: threads that a failure left behind may still read it.
  const guest = new SendingGuest([count]);
  const { blocks, shared } = guest;
  const stopFd = descriptors.event();
  const [fd, mainFd] = descriptors.pair();
  oweEverything(shared, blocks);
  const go = new SharedEvent();
  go.set();
  const order = { shared: guest.data, blocks, fd, stopFd, go: go.shared };
  const pushing = pusher.call("push", order);
  await waitUntil(() => isFull(fd), "a push that nobody reads");
  const pushed =
    shared.counters.get(SOURCE.pagesPushed) + shared.counters.get(SOURCE.pagesPushedZero);
  const serving = server.call("serve", order, [[0, count - 1, 1]], new SharedEvent().shared);
  await waitUntil(() => shared.mainLock.urgentWaits, "a request that waits for the channel");
  const [receipt, , served] = await Promise.all([
    main.call("receiveMain", mainFd, stopFd, blocks, Infinity),
    pushing,
    serving,
  ]);
  expect(served).toEqual([1]);
  const position = names(receipt.pages).indexOf(`0:${count - 1}`);
  // The piece under way, and what a socket may still have taken in when it was found full.
  expect(position - pushed).toBeLessThan(5 * 32);
  expectEachOnce(
    receipt.pages,
    Array.from({ length: count }, (_, page) => `0:${page}`),
  );
});

function writing(fd: number, stopFd: number): Channel {
  return new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
}

describe("a request", () => {
  /** A server over a guest of which everything is owed, and a receiver of its main channel. */
  function bench(descriptors: Descriptors, guest: SendingGuest) {
    const [fd, peerFd] = descriptors.pair();
    const stopFd = descriptors.event();
    const context = sourceContext(guest.blocks, guest.shared, writing(fd, stopFd), stopFd);
    for (const bitmap of guest.shared.dirty) bitmap.setAll();
    oweDirty(context);
    const peer = new Channel({ fd: peerFd, stopFd, peer: "the source", bufferBytes: 2 ** 20 });
    peer.timeoutMs = 5000;
    const receiver = new PageReceiver(peer, guest.blocks);
    return { context, peer, receiver, server: new RequestServer(context, guest.blocks) };
  }

  test("is answered once; a repeat brings nothing, not even an empty section", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64]);
    const { receiver, server, peer } = bench(descriptors, guest);
    expect(server.serve(guest.block(0), 5 * PAGE, PAGE)).toBe(1);
    expect(server.serve(guest.block(0), 5 * PAGE, PAGE)).toBe(0);
    expect(server.serve(guest.block(0), 4 * PAGE, 3 * PAGE)).toBe(2);
    receiver.main(3);
    expect(names(receiver.pages)).toEqual(["0:5", "0:4", "0:6"]);
    expect(peer.tryRead()).toBe(0);
    expect(peer.reader.available).toBe(0);
  });

  test("moves the push to what lies around it", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([8, 40]);
    const { context, receiver, server } = bench(descriptors, guest);
    server.serve(guest.block(1), 20 * PAGE, PAGE);
    receiver.main(1);
    pushOwed(context);
    receiver.main(48);
    const pushed = names(receiver.pages.slice(1));
    // From there to the end of the block, what lies below it, then round all blocks.
    expect(pushed.slice(0, 19)).toEqual(Array.from({ length: 19 }, (_, i) => `1:${21 + i}`));
    expect(pushed.slice(19, 39)).toEqual(Array.from({ length: 20 }, (_, i) => `1:${i}`));
    expect(pushed.slice(39)).toEqual(Array.from({ length: 8 }, (_, i) => `0:${i}`));
  });

  test("for the last page of all sends the push back to the beginning", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([4, 4]);
    const { context, receiver, server } = bench(descriptors, guest);
    server.serve(guest.block(1), 3 * PAGE, PAGE);
    receiver.main(1);
    pushOwed(context);
    receiver.main(8);
    expect(names(receiver.pages)).toEqual([
      "1:3",
      ...["0:0", "0:1", "0:2", "0:3"],
      ...["1:0", "1:1", "1:2"],
    ]);
  });
});

describe("a request for a page that has been pushed", () => {
  /** A server with an urgent channel, over a guest of which all is owed but one page, sent before. */
  function bench(
    descriptors: Descriptors,
    guest: SendingGuest,
    options: { repeats?: boolean; hostPage?: number; compression?: Compression } = {},
  ) {
    const { repeats = true, hostPage = 5, compression = "auto" } = options;
    const [fd] = descriptors.pair();
    const [urgentFd, peerFd] = descriptors.pair();
    const stopFd = descriptors.event();
    const { shared, blocks } = guest;
    const context = sourceContext(blocks, shared, writing(fd, stopFd), stopFd, { compression });
    oweEverything(shared, blocks);
    shared.owed[0]?.claim(hostPage);
    Atomics.sub(shared.control, WORD.owed, 1);
    Atomics.store(shared.control, WORD.urgentFd, urgentFd);
    Atomics.store(shared.control, WORD.repeats, repeats ? FEATURE.repeats : 0);
    const peer = new Channel({ fd: peerFd, stopFd, peer: "the source", bufferBytes: 2 ** 20 });
    const receiver = new PageReceiver(peer, blocks);
    const ask = (page: number, pageSize = PAGE): number =>
      server.serve(guest.block(0), page * pageSize, pageSize);
    const server = new RequestServer(context, blocks);
    return { context, receiver, ask, peerFd };
  }

  test("brings it once more on the urgent channel, where the peer takes that", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64]);
    const { receiver, ask } = bench(descriptors, guest);
    expect([ask(5), ask(6), ask(6)]).toEqual([0, 1, 0]);
    expect(receiver.urgent()).toBe(true);
    expectEachOnce(receiver.pages.slice(0, 2), ["0:5", "0:6"]);
    expect(names(receiver.pages)).toEqual(["0:5", "0:6", "0:6"]);
    const { counters } = guest.shared;
    // It is no page that was owed, so it counts apart.
    expect([SOURCE.pagesRequested, SOURCE.pagesRepeated].map((slot) => counters.get(slot))).toEqual(
      [1, 2],
    );
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(62);
  });

  test("brings it no third time, however often it is asked for", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64], 16 * PAGE);
    const { receiver, ask } = bench(descriptors, guest, { hostPage: 2 });
    for (let time = 0; time < 2; time++) expect(ask(2, 16 * PAGE)).toBe(0);
    expect(ask(3, 16 * PAGE)).toBe(1);
    expect(receiver.urgent()).toBe(true);
    expect(receiver.pages).toHaveLength(32);
    expect(guest.shared.counters.get(SOURCE.pagesRepeated)).toBe(16);
  });

  test.each([false, true])("brings all of a huge page once more (in runs: %p)", (runs) => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64], 16 * PAGE);
    const { receiver, ask } = bench(descriptors, guest, { hostPage: 2 });
    Atomics.store(guest.shared.control, WORD.pageRuns, runs ? 1 : 0);
    expect([ask(2, 16 * PAGE), ask(3, 16 * PAGE)]).toEqual([0, 1]);
    expect(receiver.urgent()).toBe(true);
    const asked = Array.from({ length: 32 }, (_, i) => `0:${32 + i}`);
    expect(names(receiver.pages)).toEqual(asked);
    expectEachOnce(receiver.pages, asked);
    expect(receiver.torn).toEqual([]);
    const { counters } = guest.shared;
    // Of three pages one is zeros.
    const slots = [SOURCE.pagesRequested, SOURCE.pagesRequestedZero, SOURCE.pagesRepeated];
    expect(slots.map((slot) => counters.get(slot))).toEqual([11, 5, 16]);
  });

  test("brings it as it is, also where all that is pushed is compressed", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64], 16 * PAGE);
    const { context, receiver, ask } = bench(descriptors, guest, {
      hostPage: 2,
      compression: "zstd",
    });
    const { control, counters } = guest.shared;
    Atomics.store(control, WORD.pageRuns, 1);
    Atomics.store(control, WORD.packedRuns, 1);
    expect([ask(2, 16 * PAGE), ask(3, 16 * PAGE)]).toEqual([0, 1]);
    expect(receiver.urgent()).toBe(true);
    // Of their 32 pages 11 are zeros; each of the others is one word, again and again.
    expect(counters.get(SOURCE.bytesRequested)).toBeGreaterThan(21 * PAGE);
    pushOwed(context);
    expect(counters.get(SOURCE.pagesPacked)).toBe(counters.get(SOURCE.pagesPushed));
    expect(counters.get(SOURCE.bytesPostcopy)).toBeLessThan(PAGE);
  });

  test("brings nothing where the peer does not take that, as a QEMU", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64]);
    const { receiver, ask } = bench(descriptors, guest, { repeats: false });
    expect([ask(5), ask(6)]).toEqual([0, 1]);
    expect(receiver.urgent()).toBe(true);
    expect(names(receiver.pages)).toEqual(["0:6"]);
  });

  test("brings it also when nothing is owed any more: the last pages are under way then", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64]);
    const { context, receiver, ask } = bench(descriptors, guest);
    sendOwed(context);
    expect(ask(5)).toBe(0);
    expect(receiver.urgent()).toBe(true);
    expect(names(receiver.pages)).toEqual(["0:5"]);
  });

  test("brings nothing behind the end of the channel, which others wait for", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64]);
    const { context, receiver, ask } = bench(descriptors, guest, { repeats: false });
    sendOwed(context);
    expect(ask(5)).toBe(0);
    expect(receiver.urgent()).toBe(false);
    expect(receiver.pages).toEqual([]);
  });

  test("fails on a broken channel only while the peer is not done", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64]);
    const { context, ask, peerFd } = bench(descriptors, guest);
    descriptors.close(peerFd);
    expect(() => ask(5)).toThrow("broke");
    sendOwed(context);
    expect(ask(6)).toBe(0);
    expect(guest.shared.counters.get(SOURCE.pagesRepeated)).toBe(0);
  });
});

describe("the recorded working set", () => {
  const REPLAY = Uint32Array.of(45, 3, 3, 12, 44);

  /** A guest of which everything is owed, and how its pages come. */
  function bench(descriptors: Descriptors, guest: SendingGuest) {
    const [fd, peerFd] = descriptors.pair();
    const stopFd = descriptors.event();
    const channel = writing(fd, stopFd);
    // What is written with nobody reading is an error where it does not fit, and no endless wait.
    channel.timeoutMs = 1000;
    const context = sourceContext(guest.blocks, guest.shared, channel, stopFd);
    context.replay = REPLAY;
    guest.shared.awaitPages(REPLAY, guest.blocks);
    oweEverything(guest.shared, guest.blocks);
    const peer = new Channel({ fd: peerFd, stopFd, peer: "the source", bufferBytes: 2 ** 20 });
    peer.timeoutMs = 5000;
    return { context, peer, receiver: new PageReceiver(peer, guest.blocks) };
  }

  /** The PING behind the last page of the recorded working set. */
  function expectPing(peer: Channel): void {
    peer.tryRead();
    expect(readSectionHeader(peer.reader)).toEqual({ kind: "command" });
    expect(readCommand(peer.reader)).toEqual({ kind: "ping", value: PING_WORKING_SET });
  }

  test("is pushed first, in its order, and then everything else", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([40, 8]);
    const { context, peer, receiver } = bench(descriptors, guest);
    Atomics.store(guest.shared.control, WORD.pushHint, 20);
    pushOwed(context);
    receiver.main(4);
    expectPing(peer);
    receiver.main(48);
    const came = names(receiver.pages);
    expect(came.slice(0, 4)).toEqual(["1:5", "0:3", "0:12", "1:4"]);
    // Behind it what lies around it: the other block, then 16 pages on each side of 3 and 12.
    const inBlock = (block: number): string[] =>
      came.slice(4).filter((name) => name.startsWith(`${block}:`));
    expect(came.slice(4, 10)).toEqual(inBlock(1));
    expect(inBlock(0).slice(0, 27)).toEqual(
      Array.from({ length: 29 }, (_, page) => `0:${page}`).filter(
        (n) => !came.slice(1, 3).includes(n),
      ),
    );
    // And then everything else, from the last request on.
    expect(came.slice(-11)).toEqual(Array.from({ length: 11 }, (_, i) => `0:${29 + i}`));
    const all = guest.blocks.flatMap(({ index, length }) =>
      Array.from({ length: length / PAGE }, (_, page) => `${index}:${page}`),
    );
    expectEachOnce(receiver.pages, all);
  });

  test("is sent to a QEMU before its guest can run", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([40, 8]);
    const { context, peer, receiver } = bench(descriptors, guest);
    Atomics.store(guest.shared.control, WORD.peerFeatures, 0);
    sendAhead(context);
    receiver.main(4);
    expect(names(receiver.pages)).toEqual(["1:5", "0:3", "0:12", "1:4"]);
    expect(peer.tryRead()).toBe(0);
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(44);
    // That it is in place is asked first of all, as nothing of it is left to be sent.
    pushOwed(context);
    expectPing(peer);
  });

  test("is sent ahead no faster than the push may be", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([400]);
    const { context, peer } = bench(descriptors, guest);
    context.replay = Uint32Array.from({ length: 400 }, (_, page) => page);
    context.settings.maxPostcopyBandwidth = 1024;
    Atomics.store(guest.shared.control, WORD.peerFeatures, 0);
    sendAhead(context);
    // One chunk, which is more than ten milliseconds may have.
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(400 - 32);
    expect(peer.tryRead()).toBeGreaterThan(0);
  });

  test("is not sent ahead to one of ours, where nobody asks for it", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([40, 8]);
    const { context, peer } = bench(descriptors, guest);
    Atomics.store(guest.shared.control, WORD.peerFeatures, 1);
    sendAhead(context);
    expect(peer.tryRead()).toBe(0);
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(48);
  });
});

test("what is sent is counted by why it is sent, where somebody wants to see it", () => {
  using descriptors = new Descriptors();
  using guest = new SendingGuest([40, 8]);
  const [fd] = descriptors.pair();
  const stopFd = descriptors.event();
  const moved = createMovedPages();
  const context = sourceContext(guest.blocks, guest.shared, writing(fd, stopFd), stopFd);
  const pages = context.guest.openPages();
  context.makeWriter = () => new RamWriter(pages, openMovedRuns(moved, guest.blocks));
  context.replay = Uint32Array.of(45, 3, 12);
  Atomics.store(guest.shared.control, WORD.peerFeatures, 0);
  oweEverything(guest.shared, guest.blocks);
  new RequestServer(context, guest.blocks).serve(guest.block(0), 10 * PAGE, 4 * PAGE);
  sendAhead(context);
  pushOwed(context);
  const counts = new Uint32Array(moved);
  const of = (kind: number): number[] => {
    return [...counts.subarray(kind * MOVED_BINS, kind * MOVED_BINS + 48)].flatMap((count, page) =>
      Array.from({ length: count }, () => page),
    );
  };
  expect(of(KIND.request)).toEqual([10, 11, 12, 13]);
  expect(of(KIND.replay)).toEqual([3, 45]);
  const rest = Array.from({ length: 48 }, (_, page) => page);
  expect(of(KIND.push)).toEqual(rest.filter((page) => ![3, 10, 11, 12, 13, 45].includes(page)));
  expect(of(KIND.precopy)).toEqual([]);
});

describe("the push", () => {
  test("gives up when the destination has gone, or the operator asks for it", () => {
    for (const [change, message] of [
      [(guest: SendingGuest) => guest.shared.finished.set(), "The destination went away"],
      [
        (guest: SendingGuest) => {
          Atomics.store(guest.shared.control, WORD.shutStatus, 1);
          guest.shared.finished.set();
        },
        "The destination refused the guest, or gave it up",
      ],
      [
        (guest: SendingGuest) => Atomics.store(guest.shared.control, WORD.stop, 1),
        "Stopped on request",
      ],
    ] as const) {
      using descriptors = new Descriptors();
      using guest = new SendingGuest([64]);
      const [fd] = descriptors.pair();
      const stopFd = descriptors.event();
      const context = sourceContext(guest.blocks, guest.shared, writing(fd, stopFd), stopFd);
      guest.shared.dirty[0]?.setAll();
      oweDirty(context);
      change(guest);
      expect(() => pushOwed(context)).toThrow(message);
    }
  });

  test("is held back by its limit", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([40]);
    const [fd] = descriptors.pair();
    const stopFd = descriptors.event();
    const settings = { maxPostcopyBandwidth: 256 * 1024 };
    const channel = writing(fd, stopFd);
    const context = sourceContext(guest.blocks, guest.shared, channel, stopFd, settings);
    guest.shared.dirty[0]?.setAll();
    oweDirty(context);
    const began = performance.now();
    pushOwed(context);
    const tookMs = performance.now() - began;
    // A first chunk of 88 KiB, of which 25 KiB are free.
    expect(tookMs).toBeGreaterThan(200);
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(0);
  });

  test("is not held back by its limit when there is nothing left to push", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([8]);
    const [fd] = descriptors.pair();
    const stopFd = descriptors.event();
    // It would be for hours.
    const settings = { maxPostcopyBandwidth: 1 };
    const context = sourceContext(
      guest.blocks,
      guest.shared,
      writing(fd, stopFd),
      stopFd,
      settings,
    );
    guest.shared.dirty[0]?.setAll();
    oweDirty(context);
    pushOwed(context);
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(0);
  });
});
