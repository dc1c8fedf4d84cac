import { expect, test } from "bun:test";
import fc from "fast-check";
import { PacketLedger } from "../../../src/dest/packet-ledger.ts";
import { StreamError } from "../../../src/util/errors.ts";

const order = fc.integer({ min: 1, max: 60 }).chain((count) => {
  const numbers = Array.from({ length: count }, (_, number) => number);
  return fc.shuffledSubarray(numbers, { minLength: count });
});

test("packets in any order are whole when none is missing before the last", () => {
  fc.assert(
    fc.property(order, (numbers) => {
      const ledger = new PacketLedger();
      const seen = new Set<number>();
      for (const number of numbers) {
        ledger.note(number);
        seen.add(number);
        expect(ledger.whole).toBe(Math.max(...seen) === seen.size - 1);
      }
    }),
  );
});

test("a packet that comes twice is refused, whenever", () => {
  fc.assert(
    fc.property(order, fc.nat(), fc.nat(), (numbers, one, other) => {
      const ledger = new PacketLedger();
      const at = other % numbers.length;
      for (const number of numbers.slice(0, at + 1)) ledger.note(number);
      const again = numbers[one % (at + 1)] ?? -1;
      expect(() => ledger.note(again)).toThrow(StreamError);
    }),
  );
});

test("a number that is absurdly far ahead is refused", () => {
  const ledger = new PacketLedger();
  ledger.note(65_536);
  expect(ledger.whole).toBe(false);
  expect(() => ledger.note(65_537)).toThrow("came while 0 is awaited");
});
