import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { zstdCompressSync } from "node:zlib";
import {
  PACKED_RUN_PAGES_MAX,
  RUN_PAGES_MAX,
  ZERO_RUN_PAGES_MAX,
} from "../../../src/stream/constants.ts";
import { unpackRun } from "../../../src/stream/packed-run.ts";
import {
  PAGE_RUN_HEADER_BYTES_MAX,
  createPageRun,
  decodePageRun,
  isPageRun,
  putPageRun,
} from "../../../src/stream/page-run.ts";
import { byteString } from "../../../src/stream/reader.ts";
import { mayRefuse, refusalErrorOf, refusalOf } from "./laws.ts";

const PAGE = 4096;
const BASE = 100;
const MOST = {
  plain: RUN_PAGES_MAX,
  zero: ZERO_RUN_PAGES_MAX,
  zstd: PACKED_RUN_PAGES_MAX,
} as const;

const run = fc.constantFrom<keyof typeof MOST>("plain", "zero", "zstd").chain((kind) =>
  fc.record({
    kind: fc.constant(kind),
    pages: fc.integer({ min: 1, max: MOST[kind] }),
    page: fc.nat({ max: 2 ** 40 }),
    name: fc.option(fc.string({ minLength: 1, maxLength: 255, unit: "binary-ascii" }), {
      nil: undefined,
    }),
    at: fc.nat({ max: 20 }),
    frame: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
);

/** Bytes with a header at `at`, and what lies there. */
function encode({
  kind,
  pages,
  page,
  name,
  at,
  frame,
}: typeof run extends fc.Arbitrary<infer T> ? T : never) {
  const bytes = new Uint8Array(at + PAGE_RUN_HEADER_BYTES_MAX).fill(0xee);
  const view = new DataView(bytes.buffer);
  const frameBytes = Math.max(1, Math.floor(frame * pages * PAGE));
  const head = { kind, offset: page * PAGE, pages };
  const end = at + putPageRun(bytes, view, at, head, name, frameBytes);
  return { bytes, view, end, frameBytes };
}

/** The refusal of a header given in hex, as the code and what it says. */
function refused(hex: string): { code: string; message: string } {
  const bytes = Uint8Array.from(Buffer.from(hex, "hex"));
  const view = new DataView(bytes.buffer);
  return refusalErrorOf(() => decodePageRun(bytes, view, 0, bytes.length, createPageRun(), BASE));
}

describe("the header of a page run", () => {
  test("says what was written, and nothing before all of it is there", () => {
    fc.assert(
      fc.property(run, (made) => {
        const { bytes, view, end, frameBytes } = encode(made);
        const out = createPageRun();
        expect(isPageRun(view, made.at)).toBe(true);
        for (let cut = made.at; cut < end; cut++) {
          expect(decodePageRun(bytes, view, made.at, cut, out, BASE)).toBe(0);
        }
        expect(decodePageRun(bytes, view, made.at, end, out, BASE)).toBe(end - made.at);
        const { kind, pages, page, name } = made;
        const lengths = { plain: pages * PAGE, zero: 0, zstd: frameBytes };
        expect(out).toMatchObject({ kind, pages, offset: page * PAGE, dataLength: lengths[kind] });
        const read = byteString(bytes, out.nameAt, out.nameLength);
        expect(read).toBe(name ?? "");
      }),
    );
  });

  test("is refused, or read within its limits, whatever its bytes are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 40 }), (bytes) => {
        bytes[6] = (bytes[6] ?? 0) | 4;
        const view = new DataView(bytes.buffer);
        const out = createPageRun();
        mayRefuse(() => {
          const taken = decodePageRun(bytes, view, 0, bytes.length, out, BASE);
          if (taken === 0) return;
          expect(taken).toBeLessThanOrEqual(bytes.length);
          expect(out.pages).toBeWithin(1, MOST[out.kind] + 1);
          expect(out.dataLength).toBeLessThanOrEqual(out.pages * PAGE);
          expect(Number.isSafeInteger(out.offset)).toBe(true);
        });
      }),
    );
  });

  const bad = [
    ["no kind", "0000000000001420" + "00000001", "BAD_FLAGS", "RUN"],
    ["two kinds", "000000000000142a" + "00000001", "BAD_FLAGS", "ZERO|PAGE|CONTINUE|RUN"],
    ["a run of XBZRLE", "0000000000001460" + "00000001", "BAD_FLAGS", "XBZRLE"],
    ["no pages", "0000000000001428" + "00000000", "BAD_LENGTH", "0 pages"],
    ["too many pages", "0000000000001428" + "00000201", "BAD_LENGTH", "513 pages"],
    ["too many zeros", "0000000000001422" + "00040001", "BAD_LENGTH", "262145 pages"],
    ["too many packed", "0000000000001520" + "00000041" + "00000001", "BAD_LENGTH", "65 pages"],
    ["an empty frame", "0000000000001520" + "00000001" + "00000000", "BAD_LENGTH", "0 bytes"],
    ["a frame that grew", "0000000000001520" + "00000001" + "00001001", "BAD_LENGTH", "4097 bytes"],
    ["an empty name", "0000000000001408" + "00" + "00000001", "BAD_LENGTH", "empty name"],
    ["an absurd offset", "ffffffff00001428" + "00000001", "BAD_VALUE", "absurd"],
  ] as const;
  for (const [name, hex, code, says] of bad) {
    test(`with ${name} is refused`, () => {
      const error = refused(hex);
      expect(error.code).toBe(code);
      expect(error.message).toContain(says);
    });
  }
});

describe("a run that came compressed", () => {
  const pages = 3;
  const data = Uint8Array.from({ length: pages * PAGE }, (_, i) => (i >> 7) & 0xff);
  const unpack = (frame: Uint8Array, count = pages): Uint8Array => {
    const out = new Uint8Array(PACKED_RUN_PAGES_MAX * PAGE);
    unpackRun(frame, 0, frame.length, count, out, BASE);
    return out.subarray(0, count * PAGE);
  };

  test("is what it was, and just as long as was said", () => {
    const frame = zstdCompressSync(data);
    expect(unpack(frame)).toEqual(data);
    for (const count of [pages - 1, pages + 1]) {
      expect(refusalOf(() => unpack(frame, count))).toBe("BAD_PAGE");
    }
  });

  test("is refused when it is damaged, or would be larger than it may", () => {
    const huge = zstdCompressSync(new Uint8Array(64 * 1024 * 1024));
    expect(refusalOf(() => unpack(huge))).toBe("BAD_PAGE");
    const frame = zstdCompressSync(data);
    expect(refusalOf(() => unpack(frame.subarray(0, frame.length - 2)))).toBe("BAD_PAGE");
    expect(refusalOf(() => unpack(new Uint8Array(100).fill(7)))).toBe("BAD_PAGE");
  });
});
