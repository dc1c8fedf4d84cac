import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MULTIFD_HEADER_BYTES, MULTIFD_HELLO_BYTES } from "../../../src/stream/constants.ts";
import {
  createMultifdPacket,
  multifdOffset,
  readMultifdHeader,
  readMultifdHello,
} from "../../../src/stream/multifd.ts";
import type { MultifdPacket } from "../../../src/stream/multifd.ts";
import { MultifdPackets } from "../../helpers/multifd-packets.ts";
import type { HeaderChanges } from "../../helpers/multifd-packets.ts";
import { mayRefuse, refusalErrorOf, refusalOf } from "./laws.ts";

const PAGE = new Uint8Array(4096).fill(7);

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function read(bytes: Uint8Array): MultifdPacket {
  const packet = createMultifdPacket();
  readMultifdHeader(viewOf(bytes), 0, packet);
  return packet;
}

describe("the hello of a multifd channel", () => {
  test("says which one it is", () => {
    const bytes = new MultifdPackets().hello(201).take();
    expect(bytes).toHaveLength(MULTIFD_HELLO_BYTES);
    expect(readMultifdHello(viewOf(bytes), 0)).toBe(201);
  });

  test("with another magic or version is refused", () => {
    const bytes = new MultifdPackets().hello(0).take();
    expect(refusalOf(() => readMultifdHello(viewOf(bytes.with(0, 0x51)), 0))).toBe("BAD_MAGIC");
    expect(refusalOf(() => readMultifdHello(viewOf(bytes.with(7, 2)), 0))).toBe("BAD_VERSION");
  });
});

describe("a multifd packet", () => {
  test("has pages of one block, then pages of zeros", () => {
    const offsets: readonly [number, Uint8Array][] = [
      [8192, PAGE],
      [2 ** 40, PAGE],
    ];
    const bytes = new MultifdPackets().pages(2 ** 33 + 5, "pc.ram", offsets, [4096]).take();
    expect(bytes).toHaveLength(MULTIFD_HEADER_BYTES + 2 * 4096);
    expect(read(bytes)).toEqual({
      ...{ sync: false, compression: "none", block: "pc.ram", number: 2 ** 33 + 5 },
      ...{ normal: 2, zero: 1, dataLength: 8192 },
    });
    const view = viewOf(bytes);
    const seen = [0, 1, 2].map((index) => multifdOffset(view, 0, index));
    expect(seen).toEqual([8192, 2 ** 40, 4096]);
  });

  test("may be a SYNC, whose length field is one of an earlier packet", () => {
    const packet = read(new MultifdPackets().sync(3, { dataLength: 77 }).take());
    expect(packet).toMatchObject({ sync: true, normal: 0, zero: 0, dataLength: 0, number: 3 });
    expect(packet.block).toBe("");
  });

  test("says how it is compressed", () => {
    for (const compression of ["zlib", "zstd"] as const) {
      const bytes = new MultifdPackets(compression).pages(1, "pc.ram", [[0, PAGE]]).take();
      const packet = read(bytes);
      expect(packet.compression).toBe(compression);
      expect(packet.dataLength).toBe(bytes.length - MULTIFD_HEADER_BYTES);
    }
  });

  const REFUSALS: readonly [HeaderChanges, string][] = [
    [{ magic: 0x5145564d }, "BAD_MAGIC"],
    [{ version: 2 }, "BAD_VERSION"],
    [{ flags: 0x80 }, "BAD_FLAGS"],
    [{ flags: 0x40 }, "UNSUPPORTED"],
    [{ flags: 0x08 }, "UNSUPPORTED"],
    [{ flags: 0x06 }, "UNSUPPORTED"],
    [{ normal: 129, dataLength: 129 * 4096 }, "BAD_LENGTH"],
    [{ zero: 0xffff_ffff }, "BAD_LENGTH"],
    [{ dataLength: 4095 }, "BAD_LENGTH"],
    [{ flags: 2, dataLength: 0 }, "BAD_LENGTH"],
    [{ flags: 4, dataLength: 640 * 1024 + 1 }, "BAD_LENGTH"],
    [{ flags: 1 }, "UNSUPPORTED"],
  ];

  for (const [changes, code] of REFUSALS) {
    test(`with ${JSON.stringify(changes)} is refused`, () => {
      const bytes = new MultifdPackets().pages(1, "pc.ram", [[0, PAGE]], [], changes).take();
      expect(refusalOf(() => read(bytes))).toBe(code);
    });
  }

  test("of a QEMU before 9.0 is refused by name", () => {
    // There a SYNC has the count of pages that would fit.
    const error = refusalErrorOf(() =>
      read(new MultifdPackets().sync(0, { allocated: 128 }).take()),
    );
    expect(error.message).toContain("in the way of QEMU before 9.0");
    expect(error.hint).toContain("multifd off");
  });

  test("that is damaged is refused, or read as something", () => {
    const good = new MultifdPackets().pages(1, "pc.ram", [[0, PAGE]], [4096]).take();
    const change = fc.tuple(fc.nat(MULTIFD_HEADER_BYTES - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
        const bytes = good.slice();
        for (const [at, value] of changes) bytes[at] = value;
        mayRefuse(() => read(bytes));
      }),
      { numRuns: 2000 },
    );
  });
});
