import { expect, test } from "bun:test";
import fc from "fast-check";
import { decodeMessage } from "../../../syscalls/userfaultfd.ts";

/** A struct uffd_msg laid out by hand: the event, 7 reserved bytes, three little-endian words. */
function message(event: number, ...words: (number | bigint)[]): DataView {
  const view = new DataView(new ArrayBuffer(32));
  view.setUint8(0, event);
  // What is reserved may hold anything.
  for (let at = 1; at < 8; at++) view.setUint8(at, 0xee);
  words.forEach((word, i) => view.setBigUint64(8 + 8 * i, BigInt(word), true));
  return view;
}

/** By the flags above "write": of write protection, and of a page that is only not mapped. */
const CAUSES = ["missing", "write-protected", "minor"] as const;

const address = fc.nat({ max: 2 ** 47 });

test("a page fault says where, and whether it is a write", () => {
  fc.assert(
    fc.property(address, fc.nat({ max: 7 }), fc.nat(), (at, flags, thread) => {
      expect(decodeMessage(message(0x12, flags, at, thread), 0)).toEqual({
        kind: "fault",
        address: at,
        write: (flags & 1) === 1,
        cause: CAUSES[flags >>> 1] ?? "write-protected",
      });
    }),
  );
});

test("ranges that were removed or unmapped have a start and an end", () => {
  fc.assert(
    fc.property(address, address, (start, end) => {
      expect(decodeMessage(message(0x15, start, end), 0)).toEqual({ kind: "remove", start, end });
      expect(decodeMessage(message(0x16, start, end), 0)).toEqual({ kind: "unmap", start, end });
    }),
  );
});

test("a range that was moved has two places and a length", () => {
  fc.assert(
    fc.property(address, address, address, (from, to, length) => {
      const event = decodeMessage(message(0x14, from, to, length), 0);
      expect(event).toEqual({ kind: "remap", from, to, length });
    }),
  );
});

test("a fork gives a descriptor of 32 bits, whatever lies behind it", () => {
  expect(decodeMessage(message(0x13, 0xffff_ffff_0000_0011n), 0)).toEqual({ kind: "fork", fd: 17 });
});

test("the second message of a read is decoded where it lies", () => {
  const both = new Uint8Array(64);
  both.set(new Uint8Array(message(0x12, 0, 4096).buffer), 0);
  both.set(new Uint8Array(message(0x15, 8192, 12_288).buffer), 32);
  expect(decodeMessage(new DataView(both.buffer), 32)).toEqual({
    kind: "remove",
    start: 8192,
    end: 12_288,
  });
});

test("an event that nobody asked for is an error", () => {
  for (const event of [0, 0x11, 0x17, 0xff]) {
    expect(() => decodeMessage(message(event), 0)).toThrow("was not asked for");
  }
});
