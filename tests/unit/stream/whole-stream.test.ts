/**
 * A whole postcopy migration, written out by hand from docs/wire.md, decoded and encoded again:
 * that the codecs fit together, and are not wrong in the same way in both directions.
 */
import { describe, expect, test } from "bun:test";
import { readCommand, writeCommand } from "../../../src/stream/command.ts";
import { RAM_FLAG } from "../../../src/stream/constants.ts";
import { readStreamOpening, writeStreamOpening } from "../../../src/stream/header.ts";
import { checkPackageHead, scanPackageTail } from "../../../src/stream/package.ts";
import {
  createRamRecord,
  putNamedRamHeader,
  putRamHeader,
  RAM_HEADER_BYTES_MAX,
  ramRecordBytesMax,
  readRamRecord,
} from "../../../src/stream/ram-record.ts";
import { decodeRamSetup, encodeRamSetup } from "../../../src/stream/ram-setup.ts";
import { byteString, type StreamReader } from "../../../src/stream/reader.ts";
import {
  readFooter,
  readSectionHeader,
  writeEndSection,
  writeEof,
  writeFooter,
  writePartSection,
  writeStartSection,
} from "../../../src/stream/section.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { dripReader, hexBytes, refusalOf, wholeReader } from "./laws.ts";

const PAGE_11 = "11".repeat(4096);
const PAGE_22 = "22".repeat(4096);
const PACKAGE = [
  "08 0004 0000", // LISTEN
  "04 00000007 03 637075 00000000 0000000c c0ffee 7e 00000007", // FULL "cpu"
  "08 0002 0004 00000003", // PING 3
  "08 0005 0000", // RUN
];
const STREAM = [
  "5145564d 00000003", // QEVM, version 3
  "07 0000000d 70632d6934343066782d372e32", // configuration: pc-i440fx-7.2
  "08 0001 0000", // OPEN_RETURN_PATH
  "08 0002 0004 00000001", // PING 1
  "08 0003 0010 0000000000001000 0000000000001000", // ADVISE
  "01 00000002 03 72616d 00000000 00000004", // START ram
  "0000000000003004", // MEM_SIZE: 12 KiB
  "06 70632e72616d 0000000000003000", // pc.ram
  "0000000000000010", // EOS
  "7e 00000002",
  "02 00000002", // PART: a page, and a zero page of the same block
  `0000000000000008 06 70632e72616d ${PAGE_11}`,
  "0000000000001022 00",
  "0000000000000010",
  "7e 00000002",
  "08 0006 0019 00 06 70632e72616d 00 0000000000000000 0000000000001000", // DISCARD
  "08 0002 0004 00000002", // PING 2
  "08 0007 0004 0000002c", // PACKAGED
  ...PACKAGE,
  "08 0002 0004 00000004", // PING 4
  "03 00000002", // END: the page that was discarded, again
  `0000000000000008 06 70632e72616d ${PAGE_22}`,
  "0000000000000010",
  "7e 00000002",
  "00", // EOF
];

/** Copies records to `writer` until EOS; tells `log` what they were. */
function copyRam(reader: StreamReader, writer: StreamWriter, log: string[]): void {
  const record = createRamRecord();
  const header = new Uint8Array(RAM_HEADER_BYTES_MAX);
  const view = new DataView(header.buffer);
  for (;;) {
    readRamRecord(reader, record);
    const { flags, offset, nameAt, nameLength, dataAt, dataLength, fill } = record;
    if (flags === RAM_FLAG.memSize) {
      const options = { pageSizeSummary: 4096 };
      const blocks = decodeRamSetup(reader, offset, options);
      log.push(...blocks.map((block) => `block ${block.name} ${block.length}`));
      encodeRamSetup(writer, blocks, options);
      continue;
    }
    const name = byteString(reader.bytes, nameAt, nameLength);
    const data = reader.bytes.slice(dataAt, dataAt + dataLength);
    let length = 8;
    if (name === "") putRamHeader(view, 0, offset, flags);
    else length = putNamedRamHeader(header, view, 0, offset, flags, name);
    writer.raw(header.subarray(0, length));
    if ((flags & RAM_FLAG.zero) !== 0) writer.u8(fill);
    writer.raw(data);
    if (flags === RAM_FLAG.endOfSection) return;
    log.push(`page ${offset} flags ${flags} byte ${data[0] ?? fill}`);
  }
}

/** Decodes a stream section by section and encodes each again. */
function copyStream(reader: StreamReader): { bytes: Uint8Array; log: string[] } {
  const writer = new StreamWriter();
  const log: string[] = [];
  const opening = readStreamOpening(reader);
  log.push(`machine ${opening?.machine}`);
  writeStreamOpening(writer, opening);
  for (;;) {
    const header = readSectionHeader(reader);
    if (header.kind === "eof") {
      writeEof(writer);
      return { bytes: writer.bytes.slice(), log };
    }
    if (header.kind === "command") {
      const command = readCommand(reader);
      log.push(command.kind);
      writeCommand(writer, command);
      if (command.kind === "packaged") writer.raw(copyPackage(reader.take(command.size), log));
      continue;
    }
    if (header.kind === "vmDescription" || header.kind === "full") throw new Error(header.kind);
    log.push(`${header.kind} ${header.sectionId}`);
    if (header.kind === "start") writeStartSection(writer, header);
    else if (header.kind === "part") writePartSection(writer, header.sectionId);
    else writeEndSection(writer, header.sectionId);
    copyRam(reader, writer, log);
    readFooter(reader, header.sectionId);
    writeFooter(writer, header.sectionId);
  }
}

function copyPackage(bytes: Uint8Array, log: string[]): Uint8Array {
  checkPackageHead(bytes);
  const { pings, devicesEnd } = scanPackageTail(bytes);
  log.push(`package with pings ${pings.join()} and devices to ${devicesEnd}`);
  return bytes;
}

describe("a whole migration", () => {
  const stream = hexBytes(...STREAM);
  const log = [
    "machine pc-i440fx-7.2",
    "openReturnPath",
    "ping",
    "postcopyAdvise",
    "start 2",
    "block pc.ram 12288",
    "part 2",
    "page 0 flags 8 byte 17",
    "page 4096 flags 34 byte 0",
    "postcopyRamDiscard",
    "ping",
    "packaged",
    "package with pings 3 and devices to 30",
    "ping",
    "end 2",
    "page 0 flags 8 byte 34",
  ];

  test("is decoded, and encoded to the same bytes", () => {
    const reader = wholeReader(stream);
    expect(copyStream(reader)).toEqual({ bytes: stream, log });
    expect(reader.available).toBe(0);
  });

  test("is the same byte by byte", () => {
    const reader = dripReader(stream, ramRecordBytesMax(4096));
    expect(copyStream(reader)).toEqual({ bytes: stream, log });
  });

  test("is TRUNCATED wherever it is cut", () => {
    for (let cut = 0; cut < stream.length; cut++) {
      const code = refusalOf(() => copyStream(wholeReader(stream.slice(0, cut))));
      if (code !== "TRUNCATED") throw new Error(`cut at ${cut}: ${code}`);
    }
  });
});
