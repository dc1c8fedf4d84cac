import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  decodeRamSetup,
  encodeRamSetup,
  type RamSetupBlock,
  type RamSetupOptions,
} from "../../../src/stream/ram-setup.ts";
import type { StreamReader } from "../../../src/stream/reader.ts";
import {
  codecLaws,
  hexBytes,
  nameArbitrary,
  refusalErrorOf,
  refusalOf,
  wholeReader,
  written,
} from "./laws.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const EOS = hexBytes("0000000000000010");

interface Setup {
  blocks: RamSetupBlock[];
  options: RamSetupOptions;
}

/** Addresses as guests have them, among them those that look like page sizes. */
const addressArbitrary = fc.oneof(
  fc.constantFrom(0, 2 * MIB, GIB, 4 * GIB, 0xfffc_0000),
  fc.nat(2 ** 36).map((page) => page * 4096),
);

const blockArbitrary = fc.record({
  name: nameArbitrary(60),
  length: fc
    .oneof(fc.constantFrom(2 * MIB, GIB), fc.integer({ min: 1, max: 2 ** 28 }))
    .map((value) => (value >= 2 * MIB ? value - (value % 4096) : value * 4096)),
  pageSize: fc.constantFrom(4096, 4096, 2 * MIB, GIB),
  guestPhysicalAddress: addressArbitrary,
});

const setupArbitrary: fc.Arbitrary<Setup> = fc
  .record({
    blocks: fc.uniqueArray(blockArbitrary, { maxLength: 8, selector: (block) => block.name }),
    postcopy: fc.boolean(),
    addresses: fc.boolean(),
  })
  .map(({ blocks, postcopy, addresses }) => {
    const options: RamSetupOptions = { guestPhysicalAddresses: addresses };
    const seen = blocks.map((block) => {
      const { guestPhysicalAddress, ...rest } = block;
      const plain = postcopy ? rest : { ...rest, pageSize: 4096 };
      return addresses ? { ...plain, guestPhysicalAddress } : plain;
    });
    if (postcopy) {
      options.pageSizeSummary = seen.reduce((summary, block) => summary | block.pageSize, 4096);
    }
    return { blocks: seen, options };
  });

/** Reads a list as a role does: the record's u64 first. */
function read(reader: StreamReader, options: RamSetupOptions = {}): RamSetupBlock[] {
  const total = reader.u64("total") - 4;
  return decodeRamSetup(reader, total, options);
}

describe("the list of RAM blocks", () => {
  codecLaws<Setup>("list", {
    arbitrary: setupArbitrary,
    write: (writer, { blocks, options }) => encodeRamSetup(writer, blocks, options),
    read: (reader, { options }) => ({ blocks: read(reader, options), options }),
    trailer: EOS,
  });

  const golden: [name: string, bytes: string[], setup: Setup][] = [
    [
      "plain",
      [
        "0000000000203004",
        "06 70632e72616d 0000000000200000",
        "07 70632e62696f73 0000000000003000",
      ],
      {
        blocks: [
          { name: "pc.ram", length: 2 * MIB, pageSize: 4096 },
          { name: "pc.bios", length: 0x3000, pageSize: 4096 },
        ],
        options: { pageSizeSummary: 0x1000 },
      },
    ],
    [
      "with huge pages, the last block among them",
      [
        "0000000040201004",
        "01 61 0000000000200000 0000000000200000",
        "01 62 0000000000001000",
        "01 63 0000000040000000 0000000040000000",
      ],
      {
        blocks: [
          { name: "a", length: 2 * MIB, pageSize: 2 * MIB },
          { name: "b", length: 4096, pageSize: 4096 },
          { name: "c", length: GIB, pageSize: GIB },
        ],
        options: { pageSizeSummary: 0x4020_1000 },
      },
    ],
    [
      "with addresses that look like page sizes",
      [
        "0000000040202004",
        "01 61 0000000000200000 0000000000200000 0000000040000000",
        "01 62 0000000000002000 0000000000200000",
        "01 63 0000000040000000 0000000040000000",
      ],
      {
        blocks: [
          { name: "a", length: 2 * MIB, pageSize: 2 * MIB, guestPhysicalAddress: GIB },
          { name: "b", length: 0x2000, pageSize: 4096, guestPhysicalAddress: 2 * MIB },
          { name: "c", length: GIB, pageSize: 4096, guestPhysicalAddress: GIB },
        ],
        options: { pageSizeSummary: 0x20_1000, guestPhysicalAddresses: true },
      },
    ],
  ];
  for (const [name, bytes, { blocks, options }] of golden) {
    test(`${name}, in bytes`, () => {
      expect(written((w) => encodeRamSetup(w, blocks, options))).toEqual(hexBytes(...bytes));
      expect(read(wholeReader(hexBytes(...bytes, "0000000000000010")), options)).toEqual(blocks);
    });
  }

  test("does not look for page sizes without ADVISE, or when all are of the base size", () => {
    const bytes = hexBytes("0000000000200004", "01 61 0000000000200000", "0000000000200000");
    for (const options of [{}, { pageSizeSummary: 4096 }]) {
      const reader = wholeReader(bytes);
      expect(read(reader, options)).toEqual([{ name: "a", length: 2 * MIB, pageSize: 4096 }]);
      expect(reader.available).toBe(8);
    }
  });

  test("knows a base page size above the target's", () => {
    const options = { basePageSize: 65536, pageSizeSummary: 65536 + 2 * MIB };
    const blocks = [
      { name: "a", length: 65536, pageSize: 65536 },
      { name: "b", length: 2 * MIB, pageSize: 2 * MIB },
    ];
    const bytes = written((w) => (encodeRamSetup(w, blocks, options), w.raw(EOS)));
    expect(bytes.length).toBe(8 + 10 + 18 + 8);
    expect(read(wholeReader(bytes), options)).toEqual(blocks);
  });

  test("calls back after each block", () => {
    const blocks = ["a", "b"].map((name) => ({ name, length: 4096, pageSize: 4096 }));
    const bytes = written((writer) => {
      encodeRamSetup(writer, blocks, { afterBlock: ({ name }) => writer.text(`<${name}>`) });
    });
    const reader = wholeReader(bytes);
    const seen: string[] = [];
    const afterBlock = () => seen.push(reader.text(3));
    expect(read(reader, { afterBlock })).toEqual(blocks);
    expect(seen).toEqual(["<a>", "<b>"]);
  });

  const bad: [name: string, code: string, bytes: string[]][] = [
    ["a block of no bytes", "BAD_LENGTH", ["0000000000001004", "01 61 0000000000000000"]],
    ["a block of half a page", "BAD_LENGTH", ["0000000000001004", "01 61 0000000000000800"]],
    ["a block above the total", "BAD_LENGTH", ["0000000000001004", "01 61 0000000000002000"]],
    ["a block without a name", "BAD_LENGTH", ["0000000000001004", "00 0000000000001000"]],
    [
      "two blocks of one name",
      "BAD_VALUE",
      ["0000000000002004", "01 61 0000000000001000", "01 61 0000000000001000"],
    ],
    ["more than 128 TiB", "BAD_LENGTH", ["0000800000001004", "01 61 0000000000001000"]],
  ];
  for (const [name, code, bytes] of bad) {
    test(`with ${name} is refused`, () => {
      expect(refusalOf(() => read(wholeReader(hexBytes(...bytes))))).toBe(code);
    });
  }

  test("has at most 1024 blocks", () => {
    const list = (count: number) =>
      written((writer) => {
        writer.u64(count * 4096 + 4);
        for (let i = 0; i < count; i++) writer.str8(`block ${i}`).u64(4096);
      });
    expect(read(wholeReader(list(1024))).length).toBe(1024);
    const { message } = refusalErrorOf(() => read(wholeReader(list(1025))));
    expect(message).toContain("more than 1024 RAM blocks");
  });

  test("that no peer may get is a programmer's error", () => {
    for (const block of [
      { name: "", length: 4096, pageSize: 4096 },
      { name: "a", length: 0, pageSize: 4096 },
      { name: "a", length: 100, pageSize: 4096 },
      { name: "a", length: 2 ** 48, pageSize: 4096 },
    ]) {
      expect(() => written((w) => encodeRamSetup(w, [block]))).toThrow(RangeError);
    }
  });
});
