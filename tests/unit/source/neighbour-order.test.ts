import { expect, test } from "bun:test";
import fc from "fast-check";
import { NeighbourOrder } from "../../../src/source/neighbour-order.ts";
import { SendingGuest } from "../../helpers/sending-guest.ts";

const PAGE = 4096;
const PAGES = [120, 50];
const SIDE = 16;

/** Claims what an order finds, as the push does; "block:host page" of each. */
function drain(order: NeighbourOrder, guest: SendingGuest): string[] {
  const taken: string[] = [];
  for (; order.find(); order.next()) {
    expect(guest.shared.owed[order.block.index]?.claim(order.hostPage)).toBe(true);
    taken.push(`${order.block.index}:${order.hostPage}`);
  }
  return taken;
}

/** The host pages around a page of a block, that are in it. */
function around(block: number, middle: number, pages = PAGES[block] ?? 0): string[] {
  const all = Array.from({ length: 2 * SIDE + 1 }, (_, i) => middle - SIDE + i);
  return all.filter((page) => page >= 0 && page < pages).map((page) => `${block}:${page}`);
}

test("neighbours of each page come in its turn, upwards, up to the ends of its block", () => {
  using guest = new SendingGuest(PAGES);
  for (const bitmap of guest.shared.owed) bitmap.setAll();
  const order = new NeighbourOrder(Uint32Array.of(122, 60, 119), guest.blocks, guest.shared);
  expect(drain(order, guest)).toEqual([...around(1, 2), ...around(0, 60), ...around(0, 119)]);
});

test("they are what is owed around the list, each once", () => {
  const list = fc.array(fc.nat({ max: 169 }), { maxLength: 40 });
  const clear = fc.array(fc.nat({ max: 119 }), { maxLength: 60 });
  fc.assert(
    fc.property(list, clear, (pages, sent) => {
      using guest = new SendingGuest(PAGES);
      for (const bitmap of guest.shared.owed) bitmap.setAll();
      for (const page of sent) guest.shared.owed[0]?.claim(page);
      const wanted = new Set(
        pages.flatMap((page) => (page < 120 ? around(0, page) : around(1, page - 120))),
      );
      for (const page of sent) wanted.delete(`0:${page}`);
      const order = new NeighbourOrder(Uint32Array.from(pages), guest.blocks, guest.shared);
      const taken = drain(order, guest);
      expect(taken.toSorted()).toEqual([...wanted].toSorted());
    }),
  );
});

test("they are host pages, where these are larger", () => {
  using guest = new SendingGuest(PAGES, 4 * PAGE);
  for (const bitmap of guest.shared.owed) bitmap.setAll();
  const order = new NeighbourOrder(Uint32Array.of(4 * 20 + 3), guest.blocks, guest.shared);
  expect(drain(order, guest)).toEqual(around(0, 20, PAGES[0]! / 4));
});
