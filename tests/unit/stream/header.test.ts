import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  readStreamOpening,
  type StreamConfiguration,
  targetPageSizeOf,
  writeStreamOpening,
} from "../../../src/stream/header.ts";
import {
  codecLaws,
  hexBytes,
  nameArbitrary,
  refusalErrorOf,
  refusalOf,
  wholeReader,
  written,
} from "./laws.ts";

const configurationArbitrary: fc.Arbitrary<StreamConfiguration> = fc.record(
  {
    machine: nameArbitrary(),
    targetPageBits: fc.integer({ min: 10, max: 16 }),
    capabilities: fc.array(nameArbitrary(40), { maxLength: 5 }),
    uuid: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  },
  { requiredKeys: ["machine"] },
);

/** "QEVM", version 3. */
const HEADER = "5145564d 00000003";
/** A configuration with the machine type "pc". */
const PC = "07 00000002 7063";
/** 05, str8 "configuration/uuid", version 1. */
const UUID_SUBSECTION = "05 12 636f6e66696775726174696f6e2f75756964 00000001";
const UUID = "00112233445566778899aabbccddeeff";
/** 05, str8 "configuration/capabilities", version 1. */
const CAPABILITIES_SUBSECTION =
  "05 1a 636f6e66696775726174696f6e2f6361706162696c6974696573 00000001";
/** 05, str8 "configuration/target-page-bits", version 1. */
const PAGE_BITS_SUBSECTION =
  "05 1e 636f6e66696775726174696f6e2f7461726765742d706167652d62697473 00000001";

function read(...lines: string[]): StreamConfiguration | undefined {
  return readStreamOpening(wholeReader(hexBytes(...lines)));
}

describe("the opening of a stream", () => {
  codecLaws<StreamConfiguration | undefined>("opening", {
    arbitrary: fc.option(configurationArbitrary, { nil: undefined }),
    write: writeStreamOpening,
    read: readStreamOpening,
    trailer: hexBytes("08"),
  });

  const golden: [name: string, bytes: string[], value: StreamConfiguration | undefined][] = [
    ["without configuration", [HEADER], undefined],
    [
      "as QEMU sends it by default",
      [HEADER, "07 0000000d 70632d6934343066782d372e32"],
      { machine: "pc-i440fx-7.2" },
    ],
    [
      "with all three subsections",
      [
        HEADER,
        PC,
        PAGE_BITS_SUBSECTION,
        "0000000c",
        CAPABILITIES_SUBSECTION,
        "00000001 0f 782d69676e6f72652d736861726564",
        UUID_SUBSECTION,
        UUID,
      ],
      {
        machine: "pc",
        targetPageBits: 12,
        capabilities: ["x-ignore-shared"],
        uuid: hexBytes(UUID),
      },
    ],
  ];
  for (const [name, bytes, value] of golden) {
    test(name, () => {
      expect(written((w) => writeStreamOpening(w, value))).toEqual(hexBytes(...bytes));
      expect(read(...bytes, "08")).toEqual(value);
    });
  }

  test("is refused with another version, and says which", () => {
    const error = refusalErrorOf(() => read("5145564d 00000002", PC));
    expect(error.code).toBe("BAD_VERSION");
    expect(error.message).toBe(
      "The migration stream has version 2, not 3 (at byte 4 of the stream)",
    );
  });

  const bad: [name: string, code: string, bytes: string[]][] = [
    ["an empty machine type", "BAD_LENGTH", [HEADER, "07 00000000 00"]],
    ["an endless machine type", "BAD_LENGTH", [HEADER, "07 00000101", "61".repeat(257)]],
    ["an unknown subsection", "BAD_CONFIGURATION", [HEADER, PC, "05 01 78 00000001 00"]],
    [
      "a repeated subsection",
      "BAD_CONFIGURATION",
      [HEADER, PC, UUID_SUBSECTION, UUID, UUID_SUBSECTION, UUID, "08"],
    ],
    [
      "capabilities twice",
      "BAD_CONFIGURATION",
      [HEADER, PC, CAPABILITIES_SUBSECTION, "00000000", CAPABILITIES_SUBSECTION, "00000000 08"],
    ],
    [
      "page bits twice",
      "BAD_CONFIGURATION",
      [HEADER, PC, PAGE_BITS_SUBSECTION, "0000000c", PAGE_BITS_SUBSECTION, "0000000c 08"],
    ],
    [
      "a newer subsection",
      "BAD_VERSION",
      [HEADER, PC, UUID_SUBSECTION.replace(/1$/, "2"), UUID, "08"],
    ],
    ["pages of 512 bytes", "BAD_VALUE", [HEADER, PC, PAGE_BITS_SUBSECTION, "00000009 08"]],
    ["pages of 128 KiB", "BAD_VALUE", [HEADER, PC, PAGE_BITS_SUBSECTION, "00000011 08"]],
    ["65 capabilities", "BAD_LENGTH", [HEADER, PC, CAPABILITIES_SUBSECTION, "00000041 08"]],
  ];
  for (const [name, code, bytes] of bad) {
    test(`is refused with ${name}`, () => expect(refusalOf(() => read(...bytes))).toBe(code));
  }

  test("may have a machine type of 256 bytes and 64 capabilities", () => {
    const configuration = { machine: "m".repeat(256), capabilities: Array(64).fill("x") };
    const bytes = written((w) => writeStreamOpening(w, configuration));
    expect(readStreamOpening(wholeReader(Uint8Array.of(...bytes, 8)))).toEqual(configuration);
  });

  test("gives the size of a target page", () => {
    expect(targetPageSizeOf(undefined)).toBe(4096);
    expect(targetPageSizeOf({ machine: "pc" })).toBe(4096);
    expect(targetPageSizeOf({ machine: "virt", targetPageBits: 16 })).toBe(65536);
  });
});

describe("what is no stream", () => {
  const seen: [bytes: string, says: string][] = [
    ["HTTP/1.1 200 OK", "an HTTP response"],
    ["SSH-2.0-OpenSSH", "an SSH server"],
    ['{"QMP": {', "a QMP monitor socket"],
    ["LibvirtQemudSave", "a libvirt save file"],
    ["\x16\x03\x01\x02", "a TLS handshake"],
    ["\x11\x22\x33\x44", "a multifd channel"],
    ["\0\0\0\0", "zeros"],
    ["\x08\x00\x0a\x00", "the recovery of a paused migration"],
    ["\x1f\x8b\x08\x00", "compressed with gzip"],
    ["220 smtp", 'text ("220 ")'],
    ["\xde\xad\xbe\xef", "something unknown (0xdeadbeef)"],
  ];
  for (const [text, says] of seen) {
    test(`is named: ${says}`, () => {
      const bytes = Uint8Array.from(Buffer.from(text, "latin1"));
      const error = refusalErrorOf(() => readStreamOpening(wholeReader(bytes)));
      expect(error.code).toBe("BAD_MAGIC");
      expect(error.message).toStartWith("This is not a QEMU migration stream: it looks like ");
      expect(error.message).toContain(says);
      expect(error.hint).toContain("check the port");
    });
  }
});
