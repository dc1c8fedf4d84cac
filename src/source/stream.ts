/** The source's side of the main stream, piece by piece in the order of docs/wire.md. */
import { monotonicNs } from "../../syscalls/process.ts";
import { pageSizeSummary } from "../ram/block.ts";
import { RAM_FLAG, RAM_SECTION, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { discardCommands, writeCommand } from "../stream/command.ts";
import type { ByteRange, Command } from "../stream/command.ts";
import { writeStreamOpening } from "../stream/header.ts";
import { FEATURES_OURS, helloValue } from "../stream/hello.ts";
import { encodeRamSetup } from "../stream/ram-setup.ts";
import { writeEndSection, writeEof, writeFooter, writeStartSection } from "../stream/section.ts";
import { StreamWriter } from "../stream/writer.ts";
import type { SourceContext } from "./context.ts";
import { owesEverything } from "./owed.ts";
import { TIME } from "./shared.ts";

/**
 * Section number of RAM. The receiver learns it from START, and tells sections of one number apart by
 * nothing else: it must be none of the devices', whose numbers in a kept package are those of the
 * QEMU that the guest came from, counted from 0.
 */
export const RAM_SECTION_ID = 0x504f_5354;
/** PINGs of a package and behind it; QEMU uses the same values. */
export const PING_LOADED = 3;
const PING_LISTENING = 4;

function send(context: SourceContext, fill: (writer: StreamWriter) => void): void {
  const writer = new StreamWriter();
  fill(writer);
  context.channel.write(writer.bytes);
}

/** Header, configuration, return path, hello, ADVISE, and RAM's START with the list of blocks. */
export function sendOpening(context: SourceContext): void {
  const { guest, shared } = context;
  send(context, (writer) => {
    writeStreamOpening(writer, {
      machine: guest.machineType,
      ...(guest.uuid === undefined ? {} : { uuid: guest.uuid }),
    });
    writeCommand(writer, { kind: "openReturnPath" });
    writeCommand(writer, { kind: "ping", value: helloValue(FEATURES_OURS) });
    const ram = {
      pageSizeSummary: pageSizeSummary(guest.blocks),
      targetPageSize: TARGET_PAGE_SIZE,
    };
    writeCommand(writer, { kind: "postcopyAdvise", ram });
    writeStartSection(writer, { sectionId: RAM_SECTION_ID, ...RAM_SECTION });
    encodeRamSetup(writer, guest.blocks, { pageSizeSummary: ram.pageSizeSummary });
    writer.u64(RAM_FLAG.endOfSection);
    writeFooter(writer, RAM_SECTION_ID);
  });
  shared.times[TIME.helloSent] = monotonicNs();
}

/** One command. */
export function sendCommand(context: SourceContext, command: Command): void {
  send(context, (writer) => writeCommand(writer, command));
}

/**
 * The discards of all owed host pages. QEMU waits for itself for ever if LISTEN comes without a
 * discard before it (docs/wire.md), so there is always one: with nothing owed, the last page of a
 * block is named, and is owed from then on.
 */
export function sendDiscards(context: SourceContext): void {
  const { guest, shared } = context;
  const everything = owesEverything(shared, guest.blocks);
  send(context, (writer) => {
    for (const block of guest.blocks) {
      const ranges: ByteRange[] = everything ? [{ start: 0, length: block.length }] : [];
      const take = (first: number, count: number): void => {
        const start = first * block.pageSize;
        const end = Math.min(block.length, (first + count) * block.pageSize);
        ranges.push({ start, length: end - start });
      };
      if (!everything) shared.owed[block.index]?.forEachRange(take);
      for (const command of discardCommands(block.name, ranges)) writeCommand(writer, command);
    }
  });
}

/**
 * The package with the device state. Nobody can run the guest without all of it, so `commit` is
 * called before its last byte: until then the operator may still change his mind, also when the
 * destination takes nothing more.
 */
export function sendPackage(context: SourceContext, bytes: Uint8Array, commit: () => void): void {
  const last = bytes.length - 1;
  send(context, (writer) => {
    writeCommand(writer, { kind: "packaged", size: bytes.length });
    writer.raw(bytes.subarray(0, last));
  });
  commit();
  send(context, (writer) => writer.raw(bytes.subarray(last)));
}

/** The PING behind the package: its PONG says that the destination's listen thread reads. */
export function sendListeningPing(context: SourceContext): void {
  sendCommand(context, { kind: "ping", value: PING_LISTENING });
}

/** RAM's END; all pages went in PART sections. */
export function sendRamEnd(context: SourceContext): void {
  send(context, (writer) => {
    writeEndSection(writer, RAM_SECTION_ID);
    writer.u64(RAM_FLAG.endOfSection);
    writeFooter(writer, RAM_SECTION_ID);
  });
}

/** Device state outside of a package. */
export function sendSections(context: SourceContext, sections: Uint8Array): void {
  context.channel.write(sections);
}

/** The end of the stream. */
export function sendEof(context: SourceContext): void {
  send(context, writeEof);
}
