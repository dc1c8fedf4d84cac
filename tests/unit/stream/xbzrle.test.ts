import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeXbzrle, encodeXbzrle } from "../../../src/stream/xbzrle.ts";
import { hexBytes, mayRefuse, refusalErrorOf } from "./laws.ts";

/** A page and a later state of it: a few stretches of it rewritten. */
const changeArbitrary = fc
  .record({
    size: fc.constantFrom(16, 300, 4096),
    seed: fc.nat(255),
    writes: fc.array(
      fc.record({
        at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
        bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }),
      }),
      { maxLength: 10 },
    ),
  })
  .map(({ size, seed, writes }) => {
    const old = Uint8Array.from({ length: size }, (_, i) => (i * 7 + seed) & 0xff);
    const page = old.slice();
    for (const { at, bytes } of writes) {
      const start = Math.floor(at * size);
      page.set(bytes.subarray(0, size - start), start);
    }
    return { old, page };
  });

describe("XBZRLE", () => {
  test("decoded over the old page gives the new one", () => {
    fc.assert(
      fc.property(changeArbitrary, ({ old, page }) => {
        const out = new Uint8Array(page.length * 2 + 4);
        const length = encodeXbzrle(old, page, out);
        const result = old.slice();
        decodeXbzrle(out, 0, length, result);
        expect(result).toEqual(page);
        expect(length === 0).toBe(Buffer.compare(old, page) === 0);
      }),
      { numRuns: 300 },
    );
  });

  test("fits its buffer, or says that it does not", () => {
    fc.assert(
      fc.property(changeArbitrary, fc.nat(400), ({ old, page }, room) => {
        const all = new Uint8Array(page.length * 2 + 4);
        const needed = encodeXbzrle(old, page, all);
        const out = new Uint8Array(room + 1).fill(0xee);
        const length = encodeXbzrle(old, page, out.subarray(0, room));
        expect(length).toBe(needed <= room ? needed : -1);
        if (length >= 0) expect(out.slice(0, length)).toEqual(all.slice(0, length));
        expect(out[room]).toBe(0xee);
        expect(encodeXbzrle(old, page, new Uint8Array(needed))).toBe(needed);
      }),
      { numRuns: 300 },
    );
  });

  const page = (length: number, ...changes: [at: number, ...bytes: number[]][]) => {
    const bytes = new Uint8Array(length);
    for (const [at, ...values] of changes) bytes.set(values, at);
    return bytes;
  };
  const golden: [name: string, result: Uint8Array<ArrayBuffer>, payload: string][] = [
    ["nothing", page(16), ""],
    ["the first byte", page(16, [0, 0x55]), "00 01 55"],
    ["two places", page(16, [1, 1, 2], [5, 3]), "01 02 0102 02 01 03"],
    ["the last byte", page(4096, [4095, 9]), "ff1f 01 09"],
    ["after 127 bytes", page(256, [127, 7]), "7f 01 07"],
    ["after 128 bytes", page(256, [128, 7]), "8001 01 07"],
    ["200 bytes", page(256, [10, ...Array(200).fill(1)]), `0a c801 ${"01".repeat(200)}`],
  ];
  for (const [name, result, payload] of golden) {
    test(`in bytes: changed ${name} of a page of zeros`, () => {
      const out = new Uint8Array(600);
      const length = encodeXbzrle(new Uint8Array(result.length), result, out);
      expect(out.slice(0, length)).toEqual(hexBytes(payload));
      const decoded = new Uint8Array(result.length);
      decodeXbzrle(hexBytes(payload), 0, hexBytes(payload).length, decoded);
      expect(decoded).toEqual(result);
    });
  }

  test("has no number for runs above 16383 bytes", () => {
    const out = new Uint8Array(70_000);
    const old = new Uint8Array(65_536);
    const longest = page(65_536, [16_383, ...Array(16_383).fill(1)]);
    expect(encodeXbzrle(old, longest, out)).toBe(2 + 2 + 16_383);
    const decoded = old.slice();
    decodeXbzrle(out, 0, 2 + 2 + 16_383, decoded);
    expect(decoded).toEqual(longest);
    expect(encodeXbzrle(old, page(65_536, [16_384, 1]), out)).toBe(-1);
    expect(encodeXbzrle(old, new Uint8Array(65_536).fill(1), out)).toBe(-1);
  });

  const bad: [name: string, payload: string, says: string][] = [
    ["a change beyond the page", "10 01 55", "goes beyond the page"],
    ["bytes that stay beyond the page", "11 01 55", "goes beyond the page"],
    ["fewer bytes than it says", "00 03 5555", "ends within its changed bytes"],
    ["a change of nothing", "01 00", "has a run of no bytes"],
    ["a later run of nothing that stays", "01 01 55 00 01 55", "has a run of no bytes"],
    ["bytes that stay at the end", "01 01 55 02", "ends after bytes that stay"],
    ["half a length", "80", "has a length that does not end"],
    ["a length of three bytes", "808001 01 55", "has a length that does not end"],
  ];
  for (const [name, payload, says] of bad) {
    test(`with ${name} is refused`, () => {
      const bytes = hexBytes("eeee", payload);
      const action = () => decodeXbzrle(bytes, 2, bytes.length - 2, new Uint8Array(16), 50);
      const error = refusalErrorOf(action);
      expect(error.code).toBe("BAD_PAGE");
      expect(error.message).toContain(says);
      expect(error.message).toMatch(/\(at byte 5[0-9] of the stream\)$/);
    });
  }

  test("of random bytes is refused, or stays within the page", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 30 }), (payload) => {
        const memory = new Uint8Array(48).fill(0xee);
        mayRefuse(() => decodeXbzrle(payload, 0, payload.length, memory.subarray(16, 32)));
        expect(memory.subarray(0, 16)).toEqual(new Uint8Array(16).fill(0xee));
        expect(memory.subarray(32)).toEqual(new Uint8Array(16).fill(0xee));
      }),
      { numRuns: 2000 },
    );
  });
});
