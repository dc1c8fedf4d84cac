import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Channel } from "../../../src/channel/channel.ts";
import { targetPages } from "../../../src/ram/block.ts";
import { countOwedPages, oweDirty, oweEverything, oweSomething } from "../../../src/source/owed.ts";
import type { NewlyOwed } from "../../../src/source/owed.ts";
import { hostPages, WORD } from "../../../src/source/shared.ts";
import { sendDiscards } from "../../../src/source/stream.ts";
import { readCommand } from "../../../src/stream/command.ts";
import { readSectionHeader } from "../../../src/stream/section.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

const PAGE = 4096;

/** A guest and its context over one end of a connection. */
function bench(descriptors: Descriptors, guest: SendingGuest) {
  const [fd, peerFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const open = (each: number): Channel =>
    new Channel({ fd: each, stopFd, peer: "the peer", bufferBytes: 65_536 });
  const context = sourceContext(guest.blocks, guest.shared, open(fd), stopFd);
  return { context, peer: open(peerFd) };
}

const dirtyPages = fc.array(fc.record({ block: fc.nat({ max: 1 }), page: fc.nat({ max: 63 }) }), {
  minLength: 1,
  maxLength: 30,
});

describe("what is owed", () => {
  test("is the dirty host pages, each as a whole", () => {
    fc.assert(
      fc.property(dirtyPages, fc.constantFrom(1, 4, 16), (dirty, perHostPage) => {
        using descriptors = new Descriptors();
        using guest = new SendingGuest([64, 64], perHostPage * PAGE);
        const { context } = bench(descriptors, guest);
        const model = [new Set<number>(), new Set<number>()];
        for (const { block, page } of dirty) {
          guest.shared.dirty[block]?.set(page);
          model[block]?.add(Math.floor(page / perHostPage));
        }
        oweDirty(context);
        for (const block of guest.blocks) {
          const owed = Array.from({ length: hostPages(block) }, (_, i) => i).filter((page) =>
            guest.shared.owed[block.index]?.test(page),
          );
          expect(owed).toEqual([...model[block.index]!].toSorted((a, b) => a - b));
        }
        const total = model[0]!.size + model[1]!.size;
        expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(total);
        expect(countOwedPages(context)).toBe(total * perHostPage);
      }),
      { numRuns: 60 },
    );
  });

  test("is named once, however often its pages are dirtied again", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64, 64], 4 * PAGE);
    const { context } = bench(descriptors, guest);
    const { dirty, control } = guest.shared;
    dirty[0]?.setRange(9, 2);
    expect(oweDirty(context)).toEqual([[{ start: 8 * PAGE, length: 4 * PAGE }], []]);
    // Its host page again, and both of its neighbours.
    dirty[0]?.setRange(7, 6);
    dirty[1]?.set(63);
    expect(oweDirty(context)).toEqual([
      [
        { start: 4 * PAGE, length: 4 * PAGE },
        { start: 12 * PAGE, length: 4 * PAGE },
      ],
      [{ start: 60 * PAGE, length: 4 * PAGE }],
    ]);
    expect(oweDirty(context)).toEqual([[], []]);
    expect(control[WORD.owed]).toBe(4);
  });

  test("is at least one page, as QEMU must see a discard before LISTEN", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([8, 4]);
    const { context, peer } = bench(descriptors, guest);
    const owed = oweSomething(context);
    expect(Atomics.load(guest.shared.control, WORD.owed)).toBe(1);
    expect(guest.shared.owed[0]?.test(7)).toBe(true);
    sendDiscards(context, owed);
    expect(oweSomething(context)).toEqual([]);
    expect(readSectionHeader(peer.reader)).toEqual({ kind: "command" });
    expect(readCommand(peer.reader)).toEqual({
      kind: "postcopyRamDiscard",
      block: "block0",
      ranges: [{ start: 7 * PAGE, length: PAGE }],
    });
    expect(peer.reader.available).toBe(0);
  });

  test("is discarded at the destination in commands of at most twelve ranges", () => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64, 64], 2 * PAGE);
    const { context, peer } = bench(descriptors, guest);
    // Every second host page of the first block, two neighbours of the second.
    for (let page = 0; page < 64; page += 4) guest.shared.dirty[0]?.set(page + 1);
    guest.shared.dirty[1]?.setRange(61, 3);
    sendDiscards(context, oweDirty(context));
    peer.tryRead();
    const ranges: [string, number, number][] = [];
    const sizes: number[] = [];
    while (peer.reader.available > 0) {
      readSectionHeader(peer.reader);
      const command = readCommand(peer.reader);
      if (command.kind !== "postcopyRamDiscard") throw new Error(`${command.kind} came`);
      sizes.push(command.ranges.length);
      for (const { start, length } of command.ranges) {
        ranges.push([command.block, start / PAGE, length / PAGE]);
      }
    }
    expect(sizes).toEqual([12, 4, 1]);
    const first = Array.from({ length: 16 }, (_, i) => ["block0", 4 * i, 2]);
    expect(ranges).toEqual([...first, ["block1", 60, 4]] as typeof ranges);
  });

  test.each([1, 4])("may be everything, of %d target pages a host page", (perHostPage) => {
    using descriptors = new Descriptors();
    using guest = new SendingGuest([64, 8], perHostPage * PAGE);
    const { context, peer } = bench(descriptors, guest);
    const { control, dirty, owed } = guest.shared;
    const discards = (ranges: NewlyOwed): Uint8Array => {
      sendDiscards(context, ranges);
      peer.tryRead();
      return peer.reader.take(peer.reader.available).slice();
    };
    for (const bitmap of dirty) bitmap.setAll();
    const found = discards(oweDirty(context));
    const counted = Atomics.exchange(control, WORD.owed, 0);
    const pages = countOwedPages(context);
    for (const bitmap of owed) bitmap.clearRange(0, bitmap.pages);
    expect(discards(oweEverything(guest.shared, guest.blocks))).toEqual(found);
    expect(owed.map((bitmap) => bitmap.count())).toEqual(guest.blocks.map(hostPages));
    expect(control[WORD.owed]).toBe(counted);
    expect(countOwedPages(context)).toBe(pages);
    const all = guest.blocks.reduce((sum, block) => sum + targetPages(block), 0);
    expect(pages).toBe(all);
  });
});
