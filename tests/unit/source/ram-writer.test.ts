import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { IOVEC_COUNT_MAX } from "../../../syscalls/io.ts";
import { Channel } from "../../../src/channel/channel.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { GuestMemory } from "../../../src/ram/page-reader.ts";
import type { PageReader } from "../../../src/ram/page-reader.ts";
import { RunPacker } from "../../../src/source/run-packer.ts";
import { RamWriter } from "../../../src/source/ram-writer.ts";
import { SECTION } from "../../../src/stream/constants.ts";
import { scratchAt } from "../../../syscalls/memory.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { PageReceiver } from "../../helpers/page-receiver.ts";
import { pageWord, SendingGuest } from "../../helpers/sending-guest.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as PageReceivers from "../../fixtures/page-receivers.ts";

const PAGE = 4096;
const SECTION_ID = 42;

/** Both ends of a connection. */
function ends(descriptors: Descriptors) {
  const [fd, peerFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const open = (each: number): Channel => {
    const channel = new Channel({ fd: each, stopFd, peer: "the peer", bufferBytes: 2 ** 20 });
    channel.timeoutMs = 8000;
    return channel;
  };
  return { channel: open(fd), peer: open(peerFd), peerFd, stopFd };
}

function writerOver(blocks: readonly RamBlock[]): RamWriter {
  return new RamWriter(new GuestMemory(blocks));
}

/** The same, as one that reads from files: nothing can be gathered, and many are read at once. */
function writerOfStored(blocks: readonly RamBlock[]): RamWriter {
  const memory = new GuestMemory(blocks);
  return new RamWriter({
    isZero: (block, offset) => memory.isZero(block, offset),
    copyPage: (...page) => memory.copyPage(...page),
    copyPages: (block, offset, count, target, at, stride) => {
      for (let page = 0; page < count; page++) {
        memory.copyPage(block, offset + page * PAGE, target.bytes, at + page * stride);
      }
    },
  });
}

/** Pages to send, by block and number, in any order and with repeats. */
const choice = fc.array(fc.record({ block: fc.nat({ max: 2 }), page: fc.nat({ max: 29 }) }), {
  maxLength: 40,
});

function expectedOf(chosen: readonly { block: number; page: number }[]) {
  return chosen.map(({ block, page }) => {
    const word = pageWord(block, page);
    return { block, page, word, zero: word === 0 };
  });
}

describe("what a writer composes", () => {
  const guest = new SendingGuest([30, 30, 30]);

  test("is read back as the pages that were chosen, gathered or copied", () => {
    const writer = writerOver(guest.blocks);
    fc.assert(
      fc.property(fc.array(choice, { maxLength: 3 }), fc.boolean(), (sections, copying) => {
        using descriptors = new Descriptors();
        const { channel, peer } = ends(descriptors);
        const receiver = new PageReceiver(peer, guest.blocks);
        writer.copying = copying;
        for (const chosen of sections) {
          writer.begin(SECTION_ID);
          for (const { block, page } of chosen) writer.page(guest.block(block), page * PAGE);
          const zeros = expectedOf(chosen).filter(({ zero }) => zero).length;
          expect([writer.normal, writer.zero]).toEqual([chosen.length - zeros, zeros]);
          // Small enough for the socket's buffer: nobody reads meanwhile.
          channel.writeAll(writer.finish());
          receiver.main(receiver.pages.length + chosen.length);
        }
        expect(receiver.pages).toEqual(expectedOf(sections.flat()));
        expect(receiver.torn).toEqual([]);
      }),
      { numRuns: 80 },
    );
  });

  test("is read back the same where consecutive pages go together, in each way", () => {
    const ways = fc.record({
      runs: fc.boolean(),
      copying: fc.boolean(),
      packing: fc.boolean(),
      stored: fc.boolean(),
    });
    const ranges = fc.array(
      fc.record({
        block: fc.nat({ max: 2 }),
        page: fc.nat({ max: 29 }),
        count: fc.integer({ min: 1, max: 20 }),
      }),
      { minLength: 1, maxLength: 2 },
    );
    fc.assert(
      fc.property(ranges, ways, (chosen, { runs, copying, packing, stored }) => {
        using descriptors = new Descriptors();
        const { channel, peer } = ends(descriptors);
        const receiver = new PageReceiver(peer, guest.blocks);
        const writer = stored ? writerOfStored(guest.blocks) : writerOver(guest.blocks);
        Object.assign(writer, { runs, copying });
        if (packing) writer.packer = new RunPacker();
        writer.begin(SECTION_ID);
        const pages = chosen.flatMap(({ block, page: first, count }) => {
          const end = Math.min(30, first + count);
          for (let page = first; page < end;) {
            page += writer.pages(guest.block(block), page * PAGE, end - page);
          }
          return Array.from({ length: end - first }, (_, i) => ({ block, page: first + i }));
        });
        expect(writer.normal + writer.zero).toBe(pages.length);
        expect(writer.packed).toBe(packing && runs ? writer.normal : 0);
        channel.writeAll(writer.finish());
        receiver.main(pages.length);
        expect(receiver.pages).toEqual(expectedOf(pages));
        expect(receiver.torn).toEqual([]);
      }),
      { numRuns: 80 },
    );
  });

  test("sends pages as they are where compression gains nothing", () => {
    const noise: PageReader = {
      isZero: () => false,
      copyPage: (_block, _offset, target, at) => {
        crypto.getRandomValues(target.subarray(at, at + PAGE));
      },
    };
    const writer = new RamWriter(noise);
    Object.assign(writer, { runs: true, packer: new RunPacker() });
    writer.begin(SECTION_ID);
    expect(writer.pages(guest.block(0), 0, 20)).toBe(20);
    expect([writer.normal, writer.packed]).toEqual([20, 0]);
    const overhead = 5 + (8 + 7 + 4) + (8 + 5);
    expect(writer.finish().remaining).toBe(overhead + 20 * PAGE);
  });

  test("says where each section begins and ends, and names its block anew", () => {
    using descriptors = new Descriptors();
    const { channel, peer } = ends(descriptors);
    const writer = writerOver(guest.blocks);
    for (const type of [SECTION.part, SECTION.end]) {
      writer.begin(SECTION_ID, type);
      writer.page(guest.block(1), 2 * PAGE);
      channel.writeAll(writer.finish());
      const head = [type, 0, 0, 0, SECTION_ID];
      const zeroRecord = [0, 0, 0, 0, 0, 0, 0x20, 0x02, 6, ...Buffer.from("block1"), 0];
      const tail = [0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, SECTION_ID];
      const length = head.length + zeroRecord.length + tail.length;
      expect([...peer.reader.take(length)]).toEqual([...head, ...zeroRecord, ...tail]);
    }
  });

  test("for the urgent channel is bare records, whose block holds on, and an EOS at the end", () => {
    using descriptors = new Descriptors();
    const { channel, peer } = ends(descriptors);
    const writer = writerOver(guest.blocks);
    const receiver = new PageReceiver(peer, guest.blocks);
    const chosen = [2, 5, 4].map((page) => ({ block: 2, page }));
    for (const { block, page } of chosen) {
      writer.begin(undefined);
      writer.page(guest.block(block), page * PAGE);
      channel.writeAll(writer.finish());
    }
    const named = 8 + 1 + 6 + 1;
    expect(channel.bytesWritten).toBe(named + (8 + 1) + (8 + PAGE));
    channel.writeAll(writerOver(guest.blocks).finishUrgent());
    expect(receiver.body()).toBe("end of section");
    expect(receiver.pages).toEqual(expectedOf(chosen));
    expect(peer.reader.available).toBe(0);
  });

  test("comes from wherever pages are kept, and is not counted when it cannot be had", () => {
    using descriptors = new Descriptors();
    const { channel, peer } = ends(descriptors);
    const receiver = new PageReceiver(peer, guest.blocks);
    // Pages that lie nowhere in memory: a stored guest's, one of which is damaged.
    const stored: PageReader = {
      isZero: (_block, offset) => offset === 0,
      copyPage: (block, offset, target, at) => {
        if (offset === 3 * PAGE) throw new Error(`page 3 of ${block.name} is damaged`);
        target.fill(offset / PAGE, at, at + PAGE);
      },
    };
    const writer = new RamWriter(stored);
    expect([writer.canGather, writerOver(guest.blocks).canGather]).toEqual([false, true]);
    // What is not there to be gathered is copied, whatever was asked for.
    writer.copying = false;
    writer.begin(SECTION_ID);
    for (const page of [0, 1, 2]) writer.page(guest.block(1), page * PAGE);
    channel.writeAll(writer.finish());
    receiver.main(3);
    expect(receiver.pages.map(({ page, word, zero }) => [page, word, zero])).toEqual([
      [0, 0, true],
      [1, 0x0101_0101, false],
      [2, 0x0202_0202, false],
    ]);
    writer.begin(SECTION_ID);
    expect(() => writer.page(guest.block(1), 3 * PAGE)).toThrow("page 3 of block1 is damaged");
    expect([writer.normal, writer.zero]).toEqual([0, 0]);
  });
});

/** Pages of files, none of them zeros, and how often each was read. */
function readsOf(reads: number[]): PageReader {
  return {
    isZero: () => false,
    copyPage: () => {
      throw new Error("pages that are wanted together were read one by one");
    },
    copyPages: (_block, offset, count, target, at, stride) => {
      for (let page = 0; page < count; page++) {
        const number = offset / PAGE + page;
        reads[number] = (reads[number] ?? 0) + 1;
        const from = at + page * stride;
        crypto.getRandomValues(target.bytes.subarray(from, from + PAGE));
      }
    },
  };
}

test("a huge page that is read goes in pieces, in records as in runs", () => {
  using guest = new SendingGuest([1]);
  const block = { ...guest.block(0), length: 512 * PAGE, pageSize: 512 * PAGE };
  for (const runs of [false, true]) {
    const reads: number[] = [];
    const writer = new RamWriter(readsOf(reads));
    Object.assign(writer, { runs, pieceBytes: 128 * 1024 });
    const pieces: number[] = [];
    for (let page = 0; page < 512;) {
      writer.begin(undefined);
      while (page < 512 && writer.hasRoom) page += writer.pages(block, page * PAGE, 512 - page);
      pieces.push(writer.finish().remaining);
    }
    expect(Math.max(...pieces)).toBeLessThanOrEqual(128 * 1024);
    expect(pieces.length).toBeWithin(16, 19);
    expect(reads).toEqual(Array.from({ length: 512 }, () => 1));
  }
});

test("a run that is not worth compressing is read once, and all of it together", () => {
  using guest = new SendingGuest([1]);
  const reads: number[] = [];
  const writer = new RamWriter(readsOf(reads));
  Object.assign(writer, { runs: true, packer: new RunPacker() });
  writer.begin(SECTION_ID);
  expect(writer.pages(guest.block(0), 0, 20)).toBe(20);
  expect(writer.packed).toBe(0);
  expect(writer.finish().remaining).toBeGreaterThan(20 * PAGE);
  expect(reads).toEqual(Array.from({ length: 20 }, () => 1));
});

describe("a full writer", () => {
  const fixture = import.meta.resolve("../../fixtures/page-receivers.ts");
  const PAGES = 1500;

  test.each([true, false])("says so before anything is cut off (copying: %p)", async (copying) => {
    await using thread = await startThread<typeof PageReceivers>(fixture);
    using descriptors = new Descriptors();
    using guest = new SendingGuest([PAGES]);
    const block = guest.block(0);
    // No page is zero: the most there can be of each piece.
    const words = new Uint32Array(scratchAt(block.address, block.length).bytes.buffer);
    for (let page = 0; page < PAGES; page++) words.fill(page + 1, page * 1024, (page + 1) * 1024);
    const { channel, peerFd, stopFd } = ends(descriptors);
    const receiving = thread.call("receiveMain", peerFd, stopFd, guest.blocks, PAGES);
    const writer = writerOver(guest.blocks);
    writer.copying = copying;
    const counts: number[] = [];
    for (let page = 0; page < PAGES;) {
      writer.begin(SECTION_ID);
      while (page < PAGES && writer.hasRoom) writer.page(block, page++ * PAGE);
      counts.push(writer.normal);
      channel.writeAll(writer.finish());
    }
    const { pages, torn } = await receiving;
    expect(pages.map(({ word }) => word)).toEqual(Array.from({ length: PAGES }, (_, i) => i + 1));
    expect(torn).toEqual([]);
    // It is of use: precopy puts 256 pages into each chunk without asking.
    expect(Math.min(...counts.slice(0, -1))).toBeGreaterThanOrEqual(256);
    expect(Math.max(...counts)).toBeLessThan(IOVEC_COUNT_MAX / 2);
  });

  test("has room for as many zero pages as a chunk can have", () => {
    using guest = new SendingGuest([3]);
    const writer = writerOver(guest.blocks);
    writer.begin(SECTION_ID);
    let pages = 0;
    for (; writer.hasRoom && pages < 1_000_000; pages++) writer.page(guest.block(0), 2 * PAGE);
    expect(pages).toBeGreaterThan(1000);
    expect(pages).toBeLessThan(1_000_000);
    expect(writer.finish().remaining).toBeGreaterThan(pages * 9);
  });
});
