import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { RAM_FLAG } from "../../../src/stream/constants.ts";
import {
  compressBound,
  createRamRecord,
  decodeRamHeader,
  decodeRamRecord,
  putNamedRamHeader,
  putRamHeader,
  putXbzrleHeader,
  RAM_HEADER_BYTES_MAX,
  ramRecordBytesMax,
  readRamRecord,
} from "../../../src/stream/ram-record.ts";
import { byteString } from "../../../src/stream/reader.ts";
import {
  dripReader,
  hexBytes,
  mayRefuse,
  nameArbitrary,
  pageMultipleArbitrary,
  refusalErrorOf,
  wholeReader,
} from "./laws.ts";

const { zero, memSize, page, endOfSection, xbzrle, compressPage, multifdFlush } = RAM_FLAG;
const CONTINUE = RAM_FLAG.continue;

/** A record as a test thinks of it; `data` is the page, or its encoded form. */
interface Sample {
  flags: number;
  offset: number;
  block: string;
  fill: number;
  data: Uint8Array;
}

const flagsArbitrary = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(page, page | CONTINUE, zero, zero | CONTINUE) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(xbzrle, xbzrle | CONTINUE, compressPage, compressPage | CONTINUE),
  },
  { weight: 1, arbitrary: fc.constantFrom(memSize, endOfSection, multifdFlush) },
);

/** Data of the length the flags call for. */
function dataArbitrary(flags: number): fc.Arbitrary<Uint8Array> {
  const kind = flags & ~CONTINUE;
  if (kind === page) return fc.nat(255).map((byte) => new Uint8Array(4096).fill(byte));
  if (kind === xbzrle) return fc.uint8Array({ maxLength: 64 });
  if (kind === compressPage) return fc.uint8Array({ minLength: 1, maxLength: 64 });
  return fc.constant(new Uint8Array(0));
}

const sampleArbitrary: fc.Arbitrary<Sample> = flagsArbitrary.chain((flags) => {
  const isPage = (flags & (page | zero | xbzrle | compressPage)) !== 0;
  return fc.record({
    flags: fc.constant(flags),
    offset: isPage || flags === memSize ? pageMultipleArbitrary : fc.constant(0),
    block: isPage && (flags & CONTINUE) === 0 ? nameArbitrary() : fc.constant(""),
    fill: (flags & zero) === 0 ? fc.constant(0) : fc.nat(255),
    data: dataArbitrary(flags),
  });
});

function encode({ flags, offset, block, fill, data }: Sample): Uint8Array {
  const bytes = new Uint8Array(ramRecordBytesMax(4096));
  const view = new DataView(bytes.buffer);
  let at = 8;
  if (block === "") putRamHeader(view, 0, offset, flags);
  else at = putNamedRamHeader(bytes, view, 0, offset, flags, block);
  if ((flags & zero) !== 0) bytes[at++] = fill;
  if ((flags & xbzrle) !== 0) at += putXbzrleHeader(view, at, data.length);
  if ((flags & compressPage) !== 0) {
    view.setUint32(at, data.length);
    at += 4;
  }
  bytes.set(data, at);
  return bytes.slice(0, at + data.length);
}

/** Bytes before and behind those that are decoded: the decoder must look at neither. */
const BEFORE = 5;
const BEHIND = 10_000;

/** Decodes a record that lies in the middle of a buffer; `base` is the stream offset of it. */
function decode(record: Uint8Array, targetPageSize = 4096, base = 0) {
  const bytes = new Uint8Array(BEFORE + record.length + BEHIND).fill(1);
  bytes.set(record, BEFORE);
  const view = new DataView(bytes.buffer);
  const out = createRamRecord();
  const end = BEFORE + record.length;
  const start = base - BEFORE;
  const taken = decodeRamRecord(bytes, view, BEFORE, end, out, targetPageSize, start);
  return { taken, record: out, sample: taken === 0 ? undefined : sampleOf(bytes, out) };
}

/** What a record in `bytes` says, as the test that wrote it thinks of it. */
function sampleOf(bytes: Uint8Array, record: ReturnType<typeof createRamRecord>): Sample {
  const { flags, offset, nameAt, nameLength, dataAt, dataLength, fill } = record;
  const data = bytes.slice(dataAt, dataAt + dataLength);
  return { flags, offset, block: byteString(bytes, nameAt, nameLength), fill, data };
}

describe("RAM records", () => {
  test("are decoded as they were written", () => {
    fc.assert(
      fc.property(sampleArbitrary, (sample) => {
        const bytes = encode(sample);
        const { taken, sample: decoded } = decode(bytes);
        expect(taken).toBe(bytes.length);
        expect(decoded).toEqual(sample);
      }),
    );
  });

  test("give 0 when cut at any byte", () => {
    fc.assert(
      fc.property(sampleArbitrary, (sample) => {
        const bytes = encode(sample);
        for (let cut = 0; cut < bytes.length; cut++) {
          if (decode(bytes.subarray(0, cut)).taken !== 0) throw new Error(`cut at ${cut}`);
        }
      }),
      { numRuns: 50 },
    );
  });

  test("in a row are the same byte by byte and at once, and nothing of one is in the next", () => {
    fc.assert(
      fc.property(fc.array(sampleArbitrary, { maxLength: 12 }), (samples) => {
        const bytes = Uint8Array.from(samples.flatMap((sample) => [...encode(sample)]));
        const atOnce = wholeReader(bytes);
        const drip = dripReader(bytes, ramRecordBytesMax(4096));
        const record = createRamRecord();
        for (const sample of samples) {
          for (const reader of [atOnce, drip]) {
            readRamRecord(reader, record);
            expect(sampleOf(reader.bytes, record)).toEqual(sample);
          }
          expect(drip.offset).toBe(atOnce.offset);
        }
        expect(atOnce.available).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test("of random bytes are refused, or end within them", () => {
    const word = fc.tuple(fc.nat(3), fc.uint8Array({ minLength: 5, maxLength: 5 }), flagsArbitrary);
    fc.assert(
      fc.property(word, fc.uint8Array({ maxLength: 80 }), ([high, middle, flags], tail) => {
        const bytes = Uint8Array.of(high, ...middle, flags >> 8, flags & 0xff, ...tail);
        mayRefuse(() => expect(decode(bytes).taken).toBeLessThanOrEqual(bytes.length));
      }),
      { numRuns: 2000 },
    );
  });

  const pageOfA = "aa".repeat(4096);
  const golden: [name: string, bytes: string, sample: Sample][] = [
    [
      "the first page of a block",
      `0000000100002008 06 70632e72616d ${pageOfA}`,
      {
        flags: 0x008,
        offset: 0x1_0000_2000,
        block: "pc.ram",
        fill: 0,
        data: hexBytes(pageOfA),
      },
    ],
    [
      "the next page",
      `0000000100003028 ${pageOfA}`,
      { flags: 0x028, offset: 0x1_0000_3000, block: "", fill: 0, data: hexBytes(pageOfA) },
    ],
    [
      "a zero page of the same block",
      "00000000fffff022 00",
      { flags: 0x022, offset: 0xffff_f000, block: "", fill: 0, data: new Uint8Array(0) },
    ],
    [
      "an XBZRLE page",
      "0000000000001060 01 0003 000155",
      { flags: 0x060, offset: 0x1000, block: "", fill: 0, data: hexBytes("000155") },
    ],
    [
      "a compressed page",
      "0000000000001100 01 61 00000002 789c",
      { flags: 0x100, offset: 0x1000, block: "a", fill: 0, data: hexBytes("789c") },
    ],
    [
      "the highest page there can be",
      "001ffffffffff022 00",
      { flags: 0x022, offset: 2 ** 53 - 4096, block: "", fill: 0, data: new Uint8Array(0) },
    ],
    [
      "the longest XBZRLE page",
      `0000000000001060 01 1000 ${pageOfA}`,
      { flags: 0x060, offset: 0x1000, block: "", fill: 0, data: hexBytes(pageOfA) },
    ],
    [
      "the longest compressed page",
      `0000000000001120 0000100e ${pageOfA}${"bb".repeat(14)}`,
      {
        flags: 0x120,
        offset: 0x1000,
        block: "",
        fill: 0,
        data: hexBytes(pageOfA, "bb".repeat(14)),
      },
    ],
    [
      "the end of a section",
      "0000000000000010",
      { flags: 0x010, offset: 0, block: "", fill: 0, data: new Uint8Array(0) },
    ],
    [
      "a flush of multifd",
      "0000000000000200",
      { flags: 0x200, offset: 0, block: "", fill: 0, data: new Uint8Array(0) },
    ],
    [
      "the total of all blocks",
      "0000000040000004",
      { flags: 0x004, offset: 2 ** 30, block: "", fill: 0, data: new Uint8Array(0) },
    ],
  ];
  for (const [name, text, sample] of golden) {
    test(`${name} in bytes`, () => {
      const bytes = hexBytes(text);
      expect(encode(sample)).toEqual(bytes);
      const { taken, sample: decoded } = decode(bytes);
      expect(taken).toBe(bytes.length);
      expect(decoded).toEqual(sample);
    });
  }

  test("have the target's page size, in flags and data", () => {
    const bytes = hexBytes("0000000000010028", "bb".repeat(65536));
    const { taken, record } = decode(bytes, 65536);
    expect([taken, record.offset, record.dataLength]).toEqual([65544, 65536, 65536]);
    // With pages of 64 KiB the bits 12 to 15 can be no part of an offset.
    expect(() => decode(hexBytes("0000000000011028"), 65536)).toThrow("0x1000");
  });

  test("let their header be read before the page is there", () => {
    const bytes = hexBytes("0000000000002008 01 61");
    const record = createRamRecord();
    const view = new DataView(bytes.buffer);
    expect(decodeRamHeader(bytes, view, 0, bytes.length, record, 4096, 0)).toBe(10);
    expect([record.dataAt, record.dataLength]).toEqual([10, 4096]);
  });

  test("have the longest header and bound they say", () => {
    // zlib.h, compressBound: for 4 KiB, and where its other terms begin to count.
    expect([4096, 65_536, 2 ** 25].map(compressBound)).toEqual([4110, 65_569, 33_564_686]);
    expect(ramRecordBytesMax(4096)).toBe(8 + 256 + 4 + 4110);
    const bytes = new Uint8Array(RAM_HEADER_BYTES_MAX);
    const view = new DataView(bytes.buffer);
    const put = putNamedRamHeader(bytes, view, 0, 0, page, "x".repeat(255));
    expect(put).toBe(RAM_HEADER_BYTES_MAX);
  });
});

describe("illegal RAM records", () => {
  const bad: [name: string, bytes: string, code: string, says: string][] = [
    ["RDMA", "0000000000000080", "BAD_FLAGS", "HOOK, which only RDMA migration uses"],
    ["the dead FULL", "0000000000001001", "BAD_FLAGS", "FULL"],
    ["no flags", "0000000000001000", "BAD_FLAGS", "the flags 0x0"],
    ["CONTINUE alone", "0000000000001020", "BAD_FLAGS", "CONTINUE"],
    ["two kinds at once", "000000000000100a", "BAD_FLAGS", "ZERO|PAGE"],
    ["an unknown flag", "0000000000001808", "BAD_FLAGS", "PAGE|0x800"],
    ["a continued end", "0000000000000030", "BAD_FLAGS", "EOS|CONTINUE"],
    ["a continued list", "0000000000001024", "BAD_FLAGS", "MEM_SIZE|CONTINUE"],
    ["an end with an offset", "0000000000001010", "BAD_VALUE", "EOS with the offset 0x1000"],
    ["an absurd offset", "0020000000000028", "BAD_VALUE", "0x2000000000002"],
    ["an empty name", "0000000000001008 00", "BAD_LENGTH", "an empty name"],
    ["another XBZRLE", "0000000000001060 02 0001 00", "BAD_VALUE", "encoding 2"],
    ["a long XBZRLE page", "0000000000001060 01 1001", "BAD_LENGTH", "4097 bytes"],
    ["a long compressed page", "0000000000001120 0000100f", "BAD_LENGTH", "4111 bytes"],
    ["an empty compressed page", "0000000000001120 00000000", "BAD_LENGTH", "0 bytes"],
  ];
  for (const [name, text, code, says] of bad) {
    test(`${name}: refused with flag and place`, () => {
      const error = refusalErrorOf(() => decode(hexBytes(text), 4096, 100));
      expect(error.code).toBe(code);
      expect(error.message).toContain(says);
      expect(error.message).toMatch(/\(at byte 10[0-9] of the stream\)$/);
    });
  }
});
