/**
 * The pieces of a migration stream, for tests that put them together in ways that no source would:
 * in the wrong order, twice, cut off, or with a hole.
 */
import { STRESS_MACHINE, StressDevice } from "../../src/guests/stress/machine.ts";
import { STRESS_DEFAULTS } from "../../src/guests/stress/parameters.ts";
import type { StressParameters } from "../../src/guests/stress/parameters.ts";
import { createStressSetup } from "../../src/guests/stress/setup.ts";
import { writeCommand } from "../../src/stream/command.ts";
import type { ByteRange, Command } from "../../src/stream/command.ts";
import { RAM_FLAG, RAM_SECTION } from "../../src/stream/constants.ts";
import { writeStreamOpening } from "../../src/stream/header.ts";
import { writePackage } from "../../src/stream/package.ts";
import { encodeRamSetup } from "../../src/stream/ram-setup.ts";
import type { RamSetupBlock } from "../../src/stream/ram-setup.ts";
import {
  writeEndSection,
  writeEof,
  writeFooter,
  writeFullSection,
  writePartSection,
  writeStartSection,
  writeVmDescription,
} from "../../src/stream/section.ts";
import { StreamWriter } from "../../src/stream/writer.ts";

/** Writes one piece of a stream. */
export type Piece = (writer: StreamWriter) => void;

/** The bytes of pieces, one behind the other. */
export function bytesOf(...pieces: readonly Piece[]): Uint8Array<ArrayBuffer> {
  const writer = new StreamWriter();
  for (const piece of pieces) piece(writer);
  return writer.bytes.slice();
}

const PAGE_BYTES = 4096;
const RAM_ID = 7;

/** The guest of these streams: 16 pages of zeros that nobody ever writes, only checks. */
export const HAND_MADE_PARAMETERS: StressParameters = {
  ...STRESS_DEFAULTS,
  size: 16 * PAGE_BYTES,
  hotFraction: 0,
  zeroFraction: 1,
  discardRate: 0,
  durationMs: 50,
};
export const HAND_MADE_BLOCK = "stress.ram";
export const HAND_MADE_PAGES = 16;
const BLOCKS: RamSetupBlock[] = [
  { name: HAND_MADE_BLOCK, length: HAND_MADE_PARAMETERS.size, pageSize: PAGE_BYTES },
];

/** Header and configuration. */
export function opening(machine: string = STRESS_MACHINE): Piece {
  return (writer) => writeStreamOpening(writer, { machine });
}

/** One command. */
export function command(what: Command): Piece {
  return (writer) => writeCommand(writer, what);
}

export const openReturnPath = command({ kind: "openReturnPath" });
export const listen = command({ kind: "postcopyListen" });
export const run = command({ kind: "postcopyRun" });

export function ping(value: number): Piece {
  return command({ kind: "ping", value });
}

export function advise(pageSizeSummary = PAGE_BYTES, targetPageSize = PAGE_BYTES): Piece {
  return command({ kind: "postcopyAdvise", ram: { pageSizeSummary, targetPageSize } });
}

export function discard(block = HAND_MADE_BLOCK, ...ranges: ByteRange[]): Piece {
  const whole = { start: 0, length: HAND_MADE_PARAMETERS.size };
  return command({
    kind: "postcopyRamDiscard",
    block,
    ranges: ranges.length === 0 ? [whole] : ranges,
  });
}

const endOfRecords: Piece = (writer) => writer.u64(RAM_FLAG.endOfSection);

/** RAM's START with the list of blocks. */
export function ramStart(
  blocks: readonly RamSetupBlock[] = BLOCKS,
  sectionId: number = RAM_ID,
): Piece {
  return (writer) => {
    writeStartSection(writer, { sectionId, ...RAM_SECTION });
    encodeRamSetup(writer, blocks);
    endOfRecords(writer);
    writeFooter(writer, sectionId);
  };
}

/** One record: the page at `offset`, filled with a byte; zeros are sent as a ZERO record. */
export function page(offset: number, fill = 0, block = HAND_MADE_BLOCK): Piece {
  return (writer) => {
    writer.u64(offset + (fill === 0 ? RAM_FLAG.zero : RAM_FLAG.page)).str8(block);
    if (fill === 0) writer.u8(0);
    else writer.raw(new Uint8Array(PAGE_BYTES).fill(fill));
  };
}

/** Pages first to end - 1 of the guest, all zeros. */
export function zeroPages(first = 0, end = HAND_MADE_PAGES): Piece {
  return (writer) => {
    for (let n = first; n < end; n++) page(n * PAGE_BYTES)(writer);
  };
}

/** A PART section with records. */
export function ramPart(...records: readonly Piece[]): Piece {
  return (writer) => {
    writePartSection(writer, RAM_ID);
    for (const record of [...records, endOfRecords]) record(writer);
    writeFooter(writer, RAM_ID);
  };
}

/** RAM's END, with records if any are given. */
export function ramEnd(...records: readonly Piece[]): Piece {
  return (writer) => {
    writeEndSection(writer, RAM_ID);
    for (const record of [...records, endOfRecords]) record(writer);
    writeFooter(writer, RAM_ID);
  };
}

export const eof: Piece = writeEof;

/** The state of a device that nobody knows. */
export function unknownDevice(sectionId: number, idstr: string, ...body: number[]): Piece {
  return (writer) => {
    writeFullSection(writer, { sectionId, idstr, instanceId: 0, versionId: 1 });
    writer.raw(Uint8Array.from(body));
    writeFooter(writer, sectionId);
  };
}

/** The description of devices, by their names. */
export function descriptionText(...names: string[]): string {
  const devices = names.map((name) => ({ name, instance_id: 0, version: 1 }));
  return JSON.stringify({ page_size: PAGE_BYTES, devices });
}

/** The same as QEMU puts it behind EOF. */
export function description(...names: string[]): Piece {
  return (writer) => writeVmDescription(writer, descriptionText(...names));
}

/** The section of the stress device. */
export const device: Piece = (writer) => {
  const range = { address: 2 ** 40, length: HAND_MADE_PARAMETERS.size };
  writer.raw(new StressDevice(createStressSetup(HAND_MADE_PARAMETERS, [range])).rest());
};

/** PACKAGED and its content: LISTEN, device, PING 3, RUN, or what is given instead. */
export function packaged(...content: readonly Piece[]): Piece {
  const bytes =
    content.length > 0
      ? bytesOf(...content)
      : bytesOf((writer) => writePackage(writer, device, [3]));
  return (writer) => {
    writeCommand(writer, { kind: "packaged", size: bytes.length });
    writer.raw(bytes);
  };
}

/** Everything before the package of a postcopy migration without precopy. */
export const BEFORE_PACKAGE: readonly Piece[] = [
  opening(),
  openReturnPath,
  ping(1),
  advise(),
  ramStart(),
  discard(),
];

/** A whole migration. */
export const WHOLE: readonly Piece[] = [
  ...BEFORE_PACKAGE,
  packaged(),
  ramPart(zeroPages()),
  ramEnd(),
  eof,
];

/** One that completed in precopy, without a description of its devices. */
export const COMPLETED: readonly Piece[] = [
  ...[opening(), ramStart(), ramPart(zeroPages()), ramEnd(page(0, 1)), device, eof],
];
