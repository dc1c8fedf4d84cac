import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { byteString, StreamReader } from "../../../src/stream/reader.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import {
  codecLaws,
  dripReader,
  hexBytes,
  nameArbitrary,
  refusalErrorOf,
  refusalOf,
  u32Arbitrary,
  wholeReader,
  written,
} from "./laws.ts";

describe("fields", () => {
  codecLaws("u8, u16, u32, u64 and str8", {
    arbitrary: fc.record({
      u8: fc.nat(0xff),
      u16: fc.nat(0xffff),
      u32: u32Arbitrary,
      u64: fc.maxSafeNat(),
      name: nameArbitrary(),
    }),
    write: (writer, v) => writer.u8(v.u8).u16(v.u16).u32(v.u32).u64(v.u64).str8(v.name),
    read: (reader) => ({
      u8: reader.u8(),
      u16: reader.u16(),
      u32: reader.u32(),
      u64: reader.u64("number"),
      name: reader.str8(),
    }),
  });

  test("are big-endian", () => {
    const bytes = written((w) => w.u8(1).u16(0x0203).u32(0x04050607).u64(0x08090a0b0c0d0e));
    expect(bytes).toEqual(hexBytes("01 0203 04050607 0008090a0b0c0d0e"));
  });

  test("that do not fit their bytes are a programmer's error", () => {
    const writer = new StreamWriter();
    for (const write of [
      () => writer.u8(256),
      () => writer.u16(0x1_0000),
      () => writer.u32(2 ** 32),
      () => writer.u64(2 ** 53),
      () => writer.u32(-1),
      () => writer.u32(0.5),
      () => writer.str8("x".repeat(256)),
      () => writer.text("\u0100"),
    ]) {
      expect(write).toThrow(RangeError);
    }
  });

  test("keep every byte of a name, those of 0x80 to 0x9f as well", () => {
    const all = String.fromCharCode(...Array.from({ length: 255 }, (_, i) => i + 1));
    const bytes = written((w) => w.str8(all));
    expect(wholeReader(bytes).str8()).toBe(all);
    expect(byteString(bytes, 0x80, 2)).toBe("\x80\x81");
  });
});

describe("StreamReader", () => {
  test("peeks without taking", () => {
    const reader = wholeReader(hexBytes("07 08"));
    expect([reader.peekU8(), reader.u8(), reader.peekU8()]).toEqual([7, 7, 8]);
  });

  test("takes more than its buffer holds, and counts the offset through compaction", () => {
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i & 0xff);
    const reader = dripReader(bytes, 16);
    expect(reader.u16()).toBe(1);
    expect(reader.take(990)).toEqual(bytes.slice(2, 992));
    expect(reader.offset).toBe(992);
    expect(reader.take(8)).toEqual(bytes.slice(992));
    expect(refusalOf(() => reader.u8())).toBe("TRUNCATED");
  });

  test("leaves what its refill brought beyond what was asked for", () => {
    const bytes = Uint8Array.from({ length: 40 }, (_, i) => i);
    let sent = 0;
    const reader = new StreamReader(new Uint8Array(16), 0, (self) => {
      self.compact();
      const part = bytes.subarray(sent, sent + self.bytes.length - self.end);
      self.bytes.set(part, self.end);
      self.end += part.length;
      sent += part.length;
    });
    expect(reader.take(20)).toEqual(bytes.slice(0, 20));
    expect([reader.offset, reader.available]).toEqual([20, 12]);
    expect(reader.take(20)).toEqual(bytes.slice(20));
  });

  test("says where the data ends", () => {
    const reader = wholeReader(hexBytes("00 01 02"));
    reader.u16();
    const { message } = refusalErrorOf(() => reader.u32());
    expect(message).toBe("The data ends 3 bytes too early (at byte 3 of the stream)");
  });

  test("refuses a u64 above 2^53 - 1, with its value and offset", () => {
    const reader = wholeReader(hexBytes("00", "0020000000000001"));
    reader.u8();
    const { code, message } = refusalErrorOf(() => reader.u64("length"));
    expect(code).toBe("BAD_VALUE");
    expect(message).toBe(
      "The length is absurdly large: 0x20000000000001 (at byte 1 of the stream)",
    );
  });

  test("never asks its refill for what cannot fit", () => {
    const reader = new StreamReader(new Uint8Array(4), 0, () => {
      throw new Error("was asked");
    });
    expect(() => reader.ensure(5)).toThrow(RangeError);
  });
});
