import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { deflateSync } from "node:zlib";
import { inflatePage } from "../../../src/stream/compressed-page.ts";
import { compressBound } from "../../../src/stream/ram-record.ts";
import { mayRefuse, refusalErrorOf } from "./laws.ts";

const PAGE = 4096;

/** Inflates `data`, with other bytes before and behind it, over a page of 0xee. */
function inflate(data: Uint8Array): Uint8Array {
  const source = new Uint8Array(data.length + 10).fill(0xdd);
  source.set(data, 4);
  const page = new Uint8Array(PAGE).fill(0xee);
  inflatePage(source, 4, data.length, page, 1000);
  return page;
}

describe("compressed pages", () => {
  test("inflate to the page that was deflated, at any level", () => {
    const pageArbitrary = fc
      .tuple(fc.uint8Array({ minLength: 1, maxLength: PAGE }), fc.nat(9))
      .map(([seed, level]) => {
        const page = Uint8Array.from({ length: PAGE }, (_, i) => seed[i % seed.length] ?? 0);
        return { page, level };
      });
    fc.assert(
      fc.property(pageArbitrary, ({ page, level }) => {
        const data = deflateSync(page, { level });
        expect(data.length).toBeLessThanOrEqual(compressBound(PAGE));
        expect(inflate(data)).toEqual(page);
      }),
      { numRuns: 50 },
    );
  });

  const bad: [name: string, data: Uint8Array][] = [
    ["a bomb", deflateSync(new Uint8Array(10_000_000))],
    ["a byte more than a page", deflateSync(new Uint8Array(PAGE + 1))],
    ["a byte less than a page", deflateSync(new Uint8Array(PAGE - 1))],
    ["a cut stream", deflateSync(new Uint8Array(PAGE).fill(7)).subarray(0, 10)],
    ["no zlib at all", new Uint8Array(20)],
    ["nothing", new Uint8Array(0)],
  ];
  for (const [name, data] of bad) {
    test(`of ${name} are refused, and the page is left alone`, () => {
      const page = new Uint8Array(PAGE).fill(0xee);
      const error = refusalErrorOf(() =>
        inflatePage(Uint8Array.of(1, 2, ...data), 2, data.length, page, 75),
      );
      expect(error.code).toBe("BAD_PAGE");
      expect(error.message).toContain("(at byte 77 of the stream)");
      expect(page).toEqual(new Uint8Array(PAGE).fill(0xee));
    });
  }

  test("that are damaged are refused, or caught by no checksum", () => {
    const good = deflateSync(Uint8Array.from({ length: PAGE }, (_, i) => i & 0xff));
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
        const data = Uint8Array.from(good);
        data[at] = byte;
        mayRefuse(() => inflate(data));
      }),
      { numRuns: 300 },
    );
  });
});
