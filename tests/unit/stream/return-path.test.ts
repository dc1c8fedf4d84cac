import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  createReturnPathRecord,
  decodeReturnPath,
  PAGE_REQUEST_BYTES_MAX,
  putPageRequest,
  readReturnPathMessage,
  type ReturnPathMessage,
  returnPathName,
  writeReturnPathMessage,
} from "../../../src/stream/return-path.ts";
import {
  codecLaws,
  hexBytes,
  mayRefuse,
  nameArbitrary,
  pageMultipleArbitrary,
  refusalErrorOf,
  refusalOf,
  u32Arbitrary,
  wholeReader,
  written,
} from "./laws.ts";

const messageArbitrary: fc.Arbitrary<ReturnPathMessage> = fc.oneof(
  fc.record({ kind: fc.constant("shut" as const), status: u32Arbitrary }),
  fc.record({ kind: fc.constant("pong" as const), value: u32Arbitrary }),
  fc.record({
    kind: fc.constant("pageRequest" as const),
    block: fc.option(nameArbitrary(), { nil: undefined }),
    start: pageMultipleArbitrary,
    length: fc.integer({ min: 1, max: 0xffff_ffff }),
  }),
  fc.record({ kind: fc.constant("receivedBitmap" as const), block: nameArbitrary() }),
  fc.record({ kind: fc.constantFrom("resumeAck" as const, "switchoverAck" as const) }),
);

/** Bytes before and behind those that are decoded: the decoder must look at neither. */
const BEFORE = 5;
const BEHIND = 600;

/** Decodes a message that lies in the middle of a buffer; `base` is the stream offset of it. */
function decode(message: Uint8Array, base = 0): number {
  const bytes = new Uint8Array(BEFORE + message.length + BEHIND).fill(1);
  bytes.set(message, BEFORE);
  const view = new DataView(bytes.buffer);
  const end = BEFORE + message.length;
  return decodeReturnPath(bytes, view, BEFORE, end, createReturnPathRecord(), base - BEFORE);
}

describe("return path messages", () => {
  codecLaws("message", {
    arbitrary: messageArbitrary,
    write: writeReturnPathMessage,
    read: (reader) => readReturnPathMessage(reader),
  });

  const golden: [message: ReturnPathMessage, bytes: string][] = [
    [{ kind: "shut", status: 0 }, "0001 0004 00000000"],
    [{ kind: "pong", value: 0x42 }, "0002 0004 00000042"],
    [
      { kind: "pageRequest", block: "pc.ram", start: 0x1_0020_1000, length: 0x1000 },
      "0003 0013 0000000100201000 00001000 06 70632e72616d",
    ],
    [
      { kind: "pageRequest", block: undefined, start: 0xc0000, length: 0x20_0000 },
      "0004 000c 00000000000c0000 00200000",
    ],
    [{ kind: "receivedBitmap", block: "pc.ram" }, "0005 0007 06 70632e72616d"],
    [{ kind: "resumeAck" }, "0006 0004 00000001"],
    [{ kind: "switchoverAck" }, "0007 0000"],
  ];
  for (const [message, bytes] of golden) {
    test(`${message.kind} in bytes`, () => {
      expect(written((w) => writeReturnPathMessage(w, message))).toEqual(hexBytes(bytes));
      expect(readReturnPathMessage(wholeReader(hexBytes(bytes)))).toEqual(message);
    });
  }

  test("have QEMU's names", () => {
    expect([3, 7, 9].map(returnPathName)).toEqual(["REQ_PAGES_ID", "SWITCHOVER_ACK", "message 9"]);
  });

  const bad: [name: string, code: string, bytes: string][] = [
    ["type 0", "UNKNOWN_MESSAGE", "0000 0000"],
    ["type 8", "UNKNOWN_MESSAGE", "0008 0000"],
    ["513 bytes", "BAD_LENGTH", "0003 0201"],
    ["SHUT of 0 bytes", "BAD_LENGTH", "0001 0000"],
    ["REQ_PAGES of 13 bytes", "BAD_LENGTH", "0004 000d 0000000000001000 00001000 00"],
    ["REQ_PAGES_ID without a name", "BAD_LENGTH", "0003 000d 0000000000001000 00001000 00"],
    ["REQ_PAGES_ID with a long name", "BAD_LENGTH", "0003 000e 0000000000001000 00001000 02 61"],
    ["RECV_BITMAP without a name", "BAD_LENGTH", "0005 0001 00"],
    ["RECV_BITMAP with a short name", "BAD_LENGTH", "0005 0003 01 6161"],
    ["RESUME_ACK of 0", "BAD_VALUE", "0006 0004 00000000"],
    ["a request for nothing", "BAD_VALUE", "0004 000c 0000000000001000 00000000"],
    ["a request beyond 2^53", "BAD_VALUE", "0004 000c 001ffffffffff000 00001000"],
    ["a request near 2^64", "BAD_VALUE", "0004 000c fffffffffffff000 00001000"],
  ];
  for (const [name, code, bytes] of bad) {
    test(`${name} is refused`, () => {
      expect(refusalOf(() => readReturnPathMessage(wholeReader(hexBytes(bytes))))).toBe(code);
      const { message } = refusalErrorOf(() => decode(hexBytes(bytes), 1000));
      expect(message).toMatch(/\(at byte 100[0-9] of the stream\)$/);
    });
  }
});

describe("decodeReturnPath", () => {
  test("leaves no field of an earlier message, and finds the name in place", () => {
    const bytes = hexBytes("0003 000e 0000000000001000 00001000 01 61", "0002 0004 00000007");
    const view = new DataView(bytes.buffer);
    const record = createReturnPathRecord();
    expect(decodeReturnPath(bytes, view, 0, bytes.length, record)).toBe(18);
    expect(record).toEqual({
      type: 3,
      value: 0,
      start: 4096,
      length: 4096,
      nameAt: 17,
      nameLength: 1,
    });
    expect(decodeReturnPath(bytes, view, 18, bytes.length, record)).toBe(8);
    expect(record).toEqual({ type: 2, value: 7, start: 0, length: 0, nameAt: 0, nameLength: 0 });
  });

  test("gives 0 for every message that is not whole", () => {
    fc.assert(
      fc.property(messageArbitrary, (message) => {
        const bytes = written((w) => writeReturnPathMessage(w, message));
        for (let cut = 0; cut < bytes.length; cut++) {
          expect(decode(bytes.slice(0, cut))).toBe(0);
        }
        expect(decode(bytes)).toBe(bytes.length);
      }),
      { numRuns: 30 },
    );
  });

  test("never takes more than there is of random bytes", () => {
    const header = fc.tuple(fc.nat(9), fc.nat(40)).map(([t, l]) => Uint8Array.of(0, t, 0, l));
    fc.assert(
      fc.property(header, fc.uint8Array({ maxLength: 60 }), (head, tail) => {
        const bytes = Uint8Array.of(...head, ...tail);
        mayRefuse(() => expect(decode(bytes)).toBeLessThanOrEqual(bytes.length));
      }),
      { numRuns: 1000 },
    );
  });

  test("counts offsets from the start of the stream", () => {
    const { message } = refusalErrorOf(() => decode(hexBytes("0001 0003"), 1000));
    expect(message).toBe("The message SHUT has 3 bytes (at byte 1000 of the stream)");
  });
});

describe("putPageRequest", () => {
  test("writes where it is told, nothing else, and says how much", () => {
    const bytes = new Uint8Array(PAGE_REQUEST_BYTES_MAX + 4).fill(0xee);
    const view = new DataView(bytes.buffer);
    expect(putPageRequest(bytes, view, 2, "a", 0x3000, 0x1000)).toBe(18);
    expect(bytes.slice(0, 22)).toEqual(
      hexBytes("eeee", "0003 000e 0000000000003000 00001000 01 61", "eeee"),
    );
    const longest = putPageRequest(bytes, view, 0, "x".repeat(255), 0, 4096);
    expect(longest).toBe(PAGE_REQUEST_BYTES_MAX);
  });

  test("refuses a name that cannot be", () => {
    const bytes = new Uint8Array(600);
    const view = new DataView(bytes.buffer);
    expect(() => putPageRequest(bytes, view, 0, "", 0, 4096)).toThrow(RangeError);
    expect(() => putPageRequest(bytes, view, 0, "x".repeat(256), 0, 4096)).toThrow(RangeError);
  });
});
