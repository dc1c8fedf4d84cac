import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AddressOrder, ListedOrder } from "../../../src/source/push-order.ts";
import type { PushOrder } from "../../../src/source/push-order.ts";
import { SendingGuest } from "../../helpers/sending-guest.ts";

const PAGE = 4096;
const PAGES = [40, 24];

/** Claims what an order finds, as the push does; "block:host page" of each. */
function drain(order: PushOrder, guest: SendingGuest, most = Infinity): string[] {
  const taken: string[] = [];
  for (; taken.length < most && order.find(); order.next(1)) {
    expect(guest.shared.owed[order.block.index]?.claim(order.hostPage)).toBe(true);
    taken.push(`${order.block.index}:${order.hostPage}`);
  }
  return taken;
}

/** All owed host pages of a guest. */
function owed(guest: SendingGuest): string[] {
  return guest.shared.owed.flatMap((bitmap, block) => {
    const pages = Array.from({ length: bitmap.pages }, (_, page) => page);
    return pages.filter((page) => bitmap.test(page)).map((page) => `${block}:${page}`);
  });
}

function oweSome(guest: SendingGuest, clear: readonly number[]): void {
  for (const bitmap of guest.shared.owed) bitmap.setAll();
  for (const page of clear) guest.shared.owed[page % 2]?.claim(page % 24);
}

const someClear = fc.array(fc.nat({ max: 47 }), { maxLength: 30 });

describe("pages by address", () => {
  test("are all that are owed, each once", () => {
    fc.assert(
      fc.property(someClear, (clear) => {
        using guest = new SendingGuest(PAGES);
        oweSome(guest, clear);
        const all = owed(guest);
        const order = new AddressOrder(guest.blocks, guest.shared);
        expect(drain(order, guest)).toEqual(all);
      }),
    );
  });

  test("are the same from anywhere on, round all blocks", () => {
    fc.assert(
      fc.property(someClear, fc.nat({ max: 63 }), (clear, start) => {
        using guest = new SendingGuest(PAGES);
        oweSome(guest, clear);
        const all = owed(guest);
        const [block, page] = start < 40 ? [0, start] : [1, start - 40];
        const isBehind = (name: string): boolean => {
          const [at = 0, number = 0] = name.split(":").map(Number);
          return at > block || (at === block && number >= page);
        };
        const first = all.findIndex(isBehind);
        const from = first < 0 ? all : [...all.slice(first), ...all.slice(0, first)];
        expect(drain(new AddressOrder(guest.blocks, guest.shared, start / 64), guest)).toEqual(
          from,
        );
      }),
    );
  });
});

describe("pages of a list", () => {
  test("are those of it that are owed, in its order, each once", () => {
    const list = fc.array(fc.nat({ max: 63 }), { maxLength: 80 });
    fc.assert(
      fc.property(someClear, list, (clear, pages) => {
        using guest = new SendingGuest(PAGES);
        oweSome(guest, clear);
        const all = new Set(owed(guest));
        const names = pages.map((page) => (page < 40 ? `0:${page}` : `1:${page - 40}`));
        const expected = [...new Set(names)].filter((name) => all.has(name));
        const order = new ListedOrder(Uint32Array.from(pages), guest.blocks, guest.shared);
        expect(drain(order, guest)).toEqual(expected);
      }),
    );
  });

  test("are host pages, where these are larger", () => {
    using guest = new SendingGuest(PAGES, 4 * PAGE);
    oweSome(guest, []);
    const order = new ListedOrder(Uint32Array.of(41, 3, 2, 63, 8), guest.blocks, guest.shared);
    expect(drain(order, guest)).toEqual(["1:0", "0:0", "1:5", "0:2"]);
  });

  test("that others send meanwhile are passed over", () => {
    using guest = new SendingGuest(PAGES);
    oweSome(guest, []);
    const order = new ListedOrder(Uint32Array.of(5, 6, 7), guest.blocks, guest.shared);
    expect(drain(order, guest, 1)).toEqual(["0:5"]);
    guest.shared.owed[0]?.claim(6);
    expect(drain(order, guest)).toEqual(["0:7"]);
    expect(order.find()).toBe(false);
  });
});
