import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  checkRamSection,
  type DeviceSection,
  readFooter,
  readFullSectionHeader,
  readSectionHeader,
  readVmDescription,
  type SectionHeader,
  writeEndSection,
  writeEof,
  writeFooter,
  writeFullSection,
  writePartSection,
  writeStartSection,
  writeVmDescription,
} from "../../../src/stream/section.ts";
import type { StreamWriter } from "../../../src/stream/writer.ts";
import {
  codecLaws,
  hexBytes,
  nameArbitrary,
  refusalErrorOf,
  refusalOf,
  u32Arbitrary,
  wholeReader,
  written,
} from "./laws.ts";

const RAM: DeviceSection = { sectionId: 2, idstr: "ram", instanceId: 0, versionId: 4 };

const deviceArbitrary = fc.record({
  sectionId: u32Arbitrary,
  idstr: nameArbitrary(),
  instanceId: u32Arbitrary,
  versionId: u32Arbitrary,
});

const headerArbitrary: fc.Arbitrary<SectionHeader> = fc.oneof(
  fc
    .tuple(fc.constantFrom("start" as const, "full" as const), deviceArbitrary)
    .map(([kind, section]) => ({ kind, ...section })),
  fc.record({ kind: fc.constantFrom("part" as const, "end" as const), sectionId: u32Arbitrary }),
  fc.constant({ kind: "eof" as const }),
);

function writeHeader(writer: StreamWriter, header: SectionHeader): void {
  if (header.kind === "start") writeStartSection(writer, header);
  else if (header.kind === "full") writeFullSection(writer, header);
  else if (header.kind === "part") writePartSection(writer, header.sectionId);
  else if (header.kind === "end") writeEndSection(writer, header.sectionId);
  else writeEof(writer);
}

describe("section headers", () => {
  codecLaws("header", {
    arbitrary: headerArbitrary,
    write: writeHeader,
    read: (reader) => readSectionHeader(reader),
  });

  codecLaws("FULL header", {
    arbitrary: deviceArbitrary,
    write: writeFullSection,
    read: (reader) => readFullSectionHeader(reader),
  });

  const golden: [header: SectionHeader, bytes: string][] = [
    [{ kind: "start", ...RAM }, "01 00000002 03 72616d 00000000 00000004"],
    [{ kind: "part", sectionId: 2 }, "02 00000002"],
    [{ kind: "end", sectionId: 0x01020304 }, "03 01020304"],
    [
      { kind: "full", sectionId: 5, idstr: "timer", instanceId: 0, versionId: 2 },
      "04 00000005 05 74696d6572 00000000 00000002",
    ],
    [{ kind: "eof" }, "00"],
  ];
  for (const [header, bytes] of golden) {
    test(`${header.kind} in bytes`, () => {
      expect(written((w) => writeHeader(w, header))).toEqual(hexBytes(bytes));
      expect(readSectionHeader(wholeReader(hexBytes(bytes)))).toEqual(header);
    });
  }

  test("command and description are left to their own readers", () => {
    const reader = wholeReader(hexBytes("08 0001 0000"));
    expect(readSectionHeader(reader)).toEqual({ kind: "command" });
    expect(reader.offset).toBe(1);
    expect(readSectionHeader(wholeReader(hexBytes("06")))).toEqual({ kind: "vmDescription" });
  });

  const bad: [byte: string, says: string][] = [
    ["05", "A subsection stands where a section should begin"],
    ["07", "A configuration section stands in the middle of the stream"],
    ["7e", "A footer stands where a section should begin"],
    ["2a", "No section begins with the byte 0x2a"],
  ];
  for (const [byte, says] of bad) {
    test(`a section cannot begin with ${byte}`, () => {
      const error = refusalErrorOf(() => readSectionHeader(wholeReader(hexBytes(byte))));
      expect(error.code).toBe("UNKNOWN_SECTION");
      expect(error.message).toBe(`${says} (at byte 0 of the stream)`);
    });
  }

  test("a loader that wants a device refuses anything else by name", () => {
    const error = refusalErrorOf(() => readFullSectionHeader(wholeReader(hexBytes("02 00000002"))));
    expect(error.code).toBe("UNKNOWN_SECTION");
    expect(error.message).toContain("not part");
  });
});

describe("the RAM section", () => {
  const reader = wholeReader(new Uint8Array(0));
  test("is accepted in version 4", () => checkRamSection(RAM, reader));

  const bad: [change: Partial<DeviceSection>, code: string][] = [
    [{ idstr: "block" }, "UNKNOWN_SECTION"],
    [{ instanceId: 1 }, "UNKNOWN_SECTION"],
    [{ versionId: 3 }, "BAD_VERSION"],
  ];
  for (const [change, code] of bad) {
    test(`is refused with ${JSON.stringify(change)}`, () => {
      expect(refusalOf(() => checkRamSection({ ...RAM, ...change }, reader))).toBe(code);
    });
  }
});

describe("footers", () => {
  codecLaws("footer", {
    arbitrary: u32Arbitrary,
    write: writeFooter,
    read: (reader, sectionId) => (readFooter(reader, sectionId), sectionId),
  });

  test("in bytes", () => {
    expect(written((w) => writeFooter(w, 2))).toEqual(hexBytes("7e 00000002"));
  });

  test("of another section are refused", () => {
    const error = refusalErrorOf(() => readFooter(wholeReader(hexBytes("7e 00000003")), 2));
    expect(error.code).toBe("BAD_FOOTER");
    expect(error.message).toContain("Section 2 ends with the footer of section 3");
  });

  test("that are missing are refused", () => {
    const error = refusalErrorOf(() => readFooter(wholeReader(hexBytes("00 00000002")), 2));
    expect(error.code).toBe("BAD_FOOTER");
    expect(error.message).toContain("the next byte is 0x0");
  });
});

describe("the description of the device state", () => {
  codecLaws("description", {
    arbitrary: fc.string({ unit: "binary-ascii", maxLength: 500 }),
    write: writeVmDescription,
    read: (reader) => {
      const { kind } = readSectionHeader(reader);
      return kind === "vmDescription" ? readVmDescription(reader) : kind;
    },
  });

  test("is refused above its limit, before it is read", () => {
    const bytes = hexBytes("01000001");
    expect(refusalOf(() => readVmDescription(wholeReader(bytes)))).toBe("BAD_LENGTH");
  });
});
