import { describe, expect, test } from "bun:test";
import { deflateSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { MULTIFD_HEADER_BYTES } from "../../../src/stream/constants.ts";
import { MultifdUnpacker } from "../../../src/stream/multifd-unpacker.ts";
import { MultifdPackets } from "../../helpers/multifd-packets.ts";
import { mayRefuse, refusalOf } from "./laws.ts";

const PAGE_BYTES = 4096;

/** Pages that compress, but not to nothing. */
const PAGES_OF = Array.from({ length: 256 }, (_, seed) => {
  return Uint8Array.from({ length: PAGE_BYTES }, (__, i) => ((i * seed) >> 3) & 0xff);
});

function pageOf(seed: number): Uint8Array {
  return PAGES_OF[seed] ?? new Uint8Array(PAGE_BYTES);
}

/** The data of one packet behind its header. */
function dataOf(packets: MultifdPackets, pages: readonly Uint8Array[]): Uint8Array {
  packets.pages(
    0,
    "pc.ram",
    pages.map((page, i) => [i * PAGE_BYTES, page] as const),
  );
  return packets.take().subarray(MULTIFD_HEADER_BYTES);
}

for (const compression of ["zlib", "zstd"] as const) {
  describe(`the ${compression} stream of a channel`, () => {
    test("is unpacked packet by packet, each with all before it", () => {
      const some = fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constant(128));
      const counts = fc.array(some, { minLength: 1, maxLength: 5 });
      fc.assert(
        fc.property(counts, (packets) => {
          const channel = new MultifdPackets(compression);
          const unpacker = new MultifdUnpacker(compression);
          for (const count of packets) {
            const pages = Array.from({ length: count }, (_, i) => pageOf(i + count));
            const out = new Uint8Array(count * PAGE_BYTES);
            unpacker.unpack(dataOf(channel, pages), out, 0);
            expect(Buffer.compare(out, Buffer.concat(pages))).toBe(0);
          }
        }),
        { numRuns: 4 },
      );
    });

    test("with another number of pages than was said is refused", () => {
      for (const said of [1, 3]) {
        const data = dataOf(new MultifdPackets(compression), [pageOf(1), pageOf(2)]);
        const out = new Uint8Array(said * PAGE_BYTES);
        expect(refusalOf(() => new MultifdUnpacker(compression).unpack(data, out, 0))).toBe(
          "BAD_PAGE",
        );
      }
    });

    test("is refused for ever once it was damaged", () => {
      const channel = new MultifdPackets(compression);
      const unpacker = new MultifdUnpacker(compression);
      const out = new Uint8Array(PAGE_BYTES);
      const first = dataOf(channel, [pageOf(1)]);
      expect(
        refusalOf(() =>
          unpacker.unpack(
            first.map((byte) => ~byte),
            out,
            0,
          ),
        ),
      ).toBe("BAD_PAGE");
      expect(refusalOf(() => unpacker.unpack(first, out, 0))).toBe("BAD_PAGE");
    });

    test("that is random is refused, or read as something", () => {
      fc.assert(
        fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (data) => {
          const unpacker = new MultifdUnpacker(compression);
          mayRefuse(() => unpacker.unpack(data, new Uint8Array(PAGE_BYTES), 0));
        }),
        { numRuns: 200 },
      );
    });

    test("that unpacks to far more than a packet holds is given up early", () => {
      const pack = compression === "zlib" ? deflateSync : zstdCompressSync;
      const bomb = pack(new Uint8Array(96 * 1024 * 1024));
      const before = process.memoryUsage.rss();
      const out = new Uint8Array(PAGE_BYTES);
      expect(refusalOf(() => new MultifdUnpacker(compression).unpack(bomb, out, 0))).toBe(
        "BAD_PAGE",
      );
      expect(process.memoryUsage.rss() - before).toBeLessThan(48 * 1024 * 1024);
    });
  });
}
