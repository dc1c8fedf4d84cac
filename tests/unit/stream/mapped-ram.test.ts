import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type MappedRamLayout,
  mappedRamLayout,
  readMappedRamHeader,
  writeMappedRamHeader,
} from "../../../src/stream/mapped-ram.ts";
import { decodeRamSetup, encodeRamSetup } from "../../../src/stream/ram-setup.ts";
import { codecLaws, hexBytes, refusalOf, wholeReader, written } from "./laws.ts";

interface Sample {
  usedLength: number;
  layout: MappedRamLayout;
}

const sampleArbitrary: fc.Arbitrary<Sample> = fc.integer({ min: 1, max: 2 ** 30 }).map((pages) => {
  const usedLength = pages * 4096;
  return { usedLength, layout: mappedRamLayout(0, usedLength, 4096) };
});

/** Version 1, pages of 4 KiB, bitmap at 28, pages at 1 MiB. */
const HEADER = "00000001 0000000000001000 000000000000001c 0000000000100000";

describe("the mapped-ram header", () => {
  codecLaws<Sample>("header", {
    arbitrary: sampleArbitrary,
    write: (writer, { layout }) => writeMappedRamHeader(writer, layout),
    read: (reader, { usedLength }) => {
      return { usedLength, layout: readMappedRamHeader(reader, usedLength, 4096) };
    },
  });

  test("in bytes, for 65 pages", () => {
    const layout = {
      pageSize: 4096,
      bitmapOffset: 28,
      bitmapBytes: 16,
      pagesOffset: 0x10_0000,
      end: 0x14_1000,
    };
    expect(mappedRamLayout(0, 65 * 4096, 4096)).toEqual(layout);
    expect(written((w) => writeMappedRamHeader(w, layout))).toEqual(hexBytes(HEADER));
    expect(readMappedRamHeader(wholeReader(hexBytes(HEADER)), 65 * 4096, 4096)).toEqual(layout);
  });

  const bad: [name: string, code: string, bytes: string][] = [
    ["another version", "BAD_VERSION", HEADER.replace("00000001", "00000002")],
    ["another page size", "BAD_VALUE", HEADER.replace("1000 ", "2000 ")],
    ["a bitmap within the header", "BAD_VALUE", HEADER.replace("1c", "1b")],
    ["pages within the bitmap", "BAD_VALUE", HEADER.replace("00100000", "00000028")],
    ["pages beyond 2^53", "BAD_VALUE", HEADER.replace("0000000000100000", "001fffffffffffff")],
  ];
  for (const [name, code, bytes] of bad) {
    test(`with ${name} is refused`, () => {
      const read = () => readMappedRamHeader(wholeReader(hexBytes(bytes)), 65 * 4096, 4096);
      expect(refusalOf(read)).toBe(code);
    });
  }

  test("stands behind each block of the list, and the next block behind its pages", () => {
    const blocks = [
      { name: "a", length: 3 * 4096, pageSize: 4096 },
      { name: "b", length: 4096, pageSize: 4096 },
    ];
    const file = written((writer) => {
      encodeRamSetup(writer, blocks, {
        afterBlock: ({ length }) => {
          const layout = mappedRamLayout(writer.length, length, 4096);
          writeMappedRamHeader(writer, layout);
          writer.raw(new Uint8Array(layout.end - writer.length));
        },
      });
    });
    const reader = wholeReader(file);
    const layouts: MappedRamLayout[] = [];
    const read = decodeRamSetup(reader, reader.u64("total") - 4, {
      afterBlock: ({ length }) => {
        const layout = readMappedRamHeader(reader, length, 4096);
        layouts.push(layout);
        reader.pos = layout.end;
      },
    });
    expect(read).toEqual(blocks);
    expect(layouts.map((layout) => layout.pagesOffset)).toEqual([0x10_0000, 0x20_0000]);
    expect(reader.available).toBe(0);
  });
});
