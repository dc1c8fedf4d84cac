import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { WORD } from "../../../src/source/shared.ts";
import { SpreadingOrder } from "../../../src/source/spreading-order.ts";
import { SendingGuest } from "../../helpers/sending-guest.ts";

const PAGES = [700, 90];
const PIECE = 32;

function bench(guest: SendingGuest) {
  for (const bitmap of guest.shared.owed) bitmap.setAll();
  const order = new SpreadingOrder(guest.blocks, guest.shared);
  /** Claims what the order finds, as the push does: the first pages of so many runs. */
  const take = (most: number): string[] => {
    const taken: string[] = [];
    for (; taken.length < most && order.find(); order.next(1)) {
      expect(guest.shared.owed[order.block.index]?.claim(order.hostPage)).toBe(true);
      taken.push(`${order.block.index}:${order.hostPage}`);
    }
    return taken;
  };
  const ask = (page: number): void => {
    Atomics.store(guest.shared.control, WORD.pushHint, page);
    order.followRequests();
  };
  return { take, ask };
}

/** The first pages of pieces. */
function starts(taken: readonly string[]): string[] {
  return taken.filter((_, i) => i % PIECE === 0);
}

describe("pages around the last requests", () => {
  test("are pushed in runs above and below, nearest first", () => {
    using guest = new SendingGuest(PAGES);
    const { take, ask } = bench(guest);
    ask(300);
    const runs = [300, 332, 364, 268, 396, 428, 460, 236];
    expect(starts(take(8 * PIECE))).toEqual(runs.map((page) => `0:${page}`));
  });

  test("the last request has most, the one before it half as much, and none is forgotten", () => {
    using guest = new SendingGuest(PAGES);
    const { take, ask } = bench(guest);
    ask(100);
    ask(400);
    const runs = [400, 100, 432, 132, 464, 164, 368];
    expect(starts(take(runs.length * PIECE))).toEqual(runs.map((page) => `0:${page}`));
    // A request just behind what was pushed goes on there.
    ask(500);
    expect(starts(take(PIECE))).toEqual(["0:500"]);
  });

  test("are followed by all others, by address", () => {
    using guest = new SendingGuest(PAGES);
    const { take, ask } = bench(guest);
    ask(710);
    const taken = take(Infinity);
    expect(taken.slice(0, PIECE)).toEqual(Array.from({ length: PIECE }, (_, i) => `1:${10 + i}`));
    expect(taken.slice(90)).toEqual(Array.from({ length: 700 }, (_, page) => `0:${page}`));
  });

  test("are all that is owed, each once, whatever is asked for and sent meanwhile", () => {
    const step = fc.record({
      ask: fc.nat({ max: 900 }),
      sent: fc.nat({ max: 699 }),
      take: fc.nat({ max: 120 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        using guest = new SendingGuest(PAGES);
        const { take, ask } = bench(guest);
        const taken: string[] = [];
        for (const each of steps) {
          ask(each.ask);
          if (guest.shared.owed[0]?.claim(each.sent)) taken.push(`0:${each.sent}`);
          taken.push(...take(each.take));
        }
        taken.push(...take(Infinity));
        expect(taken).toHaveLength(790);
        expect(new Set(taken).size).toBe(790);
      }),
      { numRuns: 30 },
    );
  });
});
