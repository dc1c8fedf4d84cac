import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type ByteRange,
  type Command,
  commandName,
  discardCommands,
  readCommand,
  writeCommand,
} from "../../../src/stream/command.ts";
import {
  codecLaws,
  hexBytes,
  nameArbitrary,
  pageMultipleArbitrary,
  refusalErrorOf,
  refusalOf,
  u32Arbitrary,
  wholeReader,
  written,
} from "./laws.ts";

const rangeArbitrary = fc.record({ start: pageMultipleArbitrary, length: pageMultipleArbitrary });

const commandArbitrary: fc.Arbitrary<Command> = fc.oneof(
  fc.record({
    kind: fc.constantFrom(
      "openReturnPath" as const,
      "postcopyListen" as const,
      "postcopyRun" as const,
      "enableColo" as const,
      "postcopyResume" as const,
      "switchoverStart" as const,
    ),
  }),
  fc.record({ kind: fc.constant("ping" as const), value: u32Arbitrary }),
  fc.record(
    {
      kind: fc.constant("postcopyAdvise" as const),
      ram: fc.record({ pageSizeSummary: fc.maxSafeNat(), targetPageSize: fc.maxSafeNat() }),
    },
    { requiredKeys: ["kind"] },
  ),
  fc.record({ kind: fc.constant("packaged" as const), size: fc.nat(0x1000_0000) }),
  fc.record({ kind: fc.constant("recvBitmap" as const), block: nameArbitrary() }),
  fc.record({
    kind: fc.constant("postcopyRamDiscard" as const),
    block: nameArbitrary(),
    ranges: fc.array(rangeArbitrary, { minLength: 1, maxLength: 12 }),
  }),
);

/** Reads a command as its reader finds it: behind its first byte. */
function read(bytes: Uint8Array): Command {
  const reader = wholeReader(bytes);
  expect(reader.u8()).toBe(8);
  return readCommand(reader);
}

describe("commands", () => {
  codecLaws("command", {
    arbitrary: commandArbitrary,
    write: writeCommand,
    read: (reader) => {
      reader.u8();
      return readCommand(reader);
    },
  });

  const golden: [command: Command, bytes: string[]][] = [
    [{ kind: "openReturnPath" }, ["08 0001 0000"]],
    [{ kind: "ping", value: 0x42 }, ["08 0002 0004 00000042"]],
    [
      { kind: "postcopyAdvise", ram: { pageSizeSummary: 0x201000, targetPageSize: 0x1000 } },
      ["08 0003 0010 0000000000201000 0000000000001000"],
    ],
    [{ kind: "postcopyAdvise" }, ["08 0003 0000"]],
    [{ kind: "postcopyListen" }, ["08 0004 0000"]],
    [{ kind: "postcopyRun" }, ["08 0005 0000"]],
    [
      {
        kind: "postcopyRamDiscard",
        block: "pc.ram",
        ranges: [
          { start: 0x1000, length: 0x2000 },
          { start: 0x1_0000_0000, length: 0x1000 },
        ],
      },
      [
        // version, name, 0: 3 + 6 bytes, and two ranges of 16
        "08 0006 0029 00 06 70632e72616d 00",
        "0000000000001000 0000000000002000",
        "0000000100000000 0000000000001000",
      ],
    ],
    [{ kind: "packaged", size: 13455 }, ["08 0007 0004 0000348f"]],
    [{ kind: "packaged", size: 2 ** 28 }, ["08 0007 0004 10000000"]],
    [{ kind: "enableColo" }, ["08 0008 0000"]],
    [{ kind: "postcopyResume" }, ["08 0009 0000"]],
    [{ kind: "recvBitmap", block: "pc.ram" }, ["08 000a 0007 06 70632e72616d"]],
    [{ kind: "recvBitmap", block: "x".repeat(255) }, ["08 000a 0100 ff", "78".repeat(255)]],
    [{ kind: "switchoverStart" }, ["08 000b 0000"]],
  ];
  for (const [command, bytes] of golden) {
    test(`${commandName(command.kind)} in bytes`, () => {
      expect(written((w) => writeCommand(w, command))).toEqual(hexBytes(...bytes));
      expect(read(hexBytes(...bytes))).toEqual(command);
    });
  }

  test("have QEMU's names, by number too", () => {
    expect(commandName(11)).toBe("SWITCHOVER_START");
    expect(commandName("postcopyRamDiscard")).toBe("POSTCOPY_RAM_DISCARD");
    expect(commandName(77)).toBe("command 77");
  });

  test("of unknown numbers are refused with number and place", () => {
    for (const number of ["0000", "000c", "ffff"]) {
      const error = refusalErrorOf(() => read(hexBytes(`08 ${number} 0000`)));
      expect(error.code).toBe("UNKNOWN_COMMAND");
      expect(error.message).toContain(`number ${Number.parseInt(number, 16)} (at byte 0 `);
    }
  });

  const bad: [name: string, code: string, bytes: string][] = [
    ["LISTEN with a payload", "BAD_LENGTH", "08 0004 0001 00"],
    ["PING of 8 bytes", "BAD_LENGTH", "08 0002 0008 0000000000000001"],
    ["ADVISE of 8 bytes", "BAD_LENGTH", "08 0003 0008 0000000000001000"],
    ["ADVISE with an absurd page size", "BAD_VALUE", `08 0003 0010 ${"ff".repeat(16)}`],
    ["PACKAGED above the limit", "BAD_LENGTH", "08 0007 0004 10000001"],
    ["RECV_BITMAP without a name", "BAD_LENGTH", "08 000a 0001 00"],
    ["RECV_BITMAP without anything", "BAD_LENGTH", "08 000a 0000"],
    ["RECV_BITMAP with a short name", "BAD_LENGTH", "08 000a 0003 01 6161"],
    ["RECV_BITMAP with a long name", "BAD_LENGTH", "08 000a 0003 03 616161"],
    ["DISCARD of no range", "BAD_LENGTH", "08 0006 0004 00 01 61 00"],
    ["DISCARD of half a range", "BAD_LENGTH", `08 0006 001c 00 01 61 00 ${"00".repeat(24)}`],
    ["DISCARD of nothing at all", "BAD_LENGTH", "08 0006 0000"],
    ["DISCARD of no name", "BAD_LENGTH", `08 0006 0023 00 00 00 ${"00".repeat(32)}`],
    ["DISCARD whose name is all", "BAD_LENGTH", `08 0006 0014 00 11 ${"61".repeat(18)}`],
    ["DISCARD whose name is more than all", "BAD_LENGTH", `08 0006 0014 00 ff ${"61".repeat(18)}`],
    ["DISCARD of version 1", "BAD_VERSION", `08 0006 0014 01 01 61 00 ${"00".repeat(16)}`],
    ["DISCARD without terminator", "BAD_VALUE", `08 0006 0014 00 01 61 01 ${"00".repeat(16)}`],
    [
      "DISCARD beyond 2^53",
      "BAD_VALUE",
      "08 0006 0014 00 01 61 00 001ffffffffff000 0000000000001000",
    ],
  ];
  for (const [name, code, bytes] of bad) {
    test(`${name} is refused`, () => expect(refusalOf(() => read(hexBytes(bytes)))).toBe(code));
  }

  test("a wrong length is refused by name, with both lengths", () => {
    const { message } = refusalErrorOf(() => read(hexBytes("08 0005 0003 000000")));
    expect(message).toBe("The command POSTCOPY_RUN has 3 bytes, not 0 (at byte 0 of the stream)");
  });

  test("that no peer may get are programmer's errors", () => {
    const range = { start: 0, length: 4096 };
    for (const command of [
      { kind: "postcopyRamDiscard", block: "a", ranges: [] },
      { kind: "postcopyRamDiscard", block: "a", ranges: Array(13).fill(range) },
      { kind: "postcopyRamDiscard", block: "", ranges: [range] },
      { kind: "recvBitmap", block: "" },
      { kind: "recvBitmap", block: "x".repeat(256) },
      { kind: "packaged", size: 0x1000_0001 },
    ] satisfies Command[]) {
      expect(() => written((w) => writeCommand(w, command))).toThrow(RangeError);
    }
  });
});

describe("discardCommands", () => {
  test("keeps every range in order, at most 12 a command", () => {
    fc.assert(
      fc.property(fc.array(rangeArbitrary, { maxLength: 60 }), (ranges) => {
        const sizes: number[] = [];
        const all: ByteRange[] = [];
        for (const command of discardCommands("pc.ram", ranges)) {
          if (command.kind !== "postcopyRamDiscard") throw new Error(command.kind);
          expect(command.block).toBe("pc.ram");
          sizes.push(command.ranges.length);
          all.push(...command.ranges);
        }
        expect(all).toEqual(ranges);
        expect(sizes.slice(0, -1).every((size) => size === 12)).toBe(true);
        expect(sizes.length).toBe(Math.ceil(ranges.length / 12));
      }),
    );
  });
});
