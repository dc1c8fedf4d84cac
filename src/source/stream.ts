/** The source's side of the main stream, piece by piece in the order of docs/wire.md. */
import { monotonicNs } from "../../syscalls/process.ts";
import { pageSizeSummary } from "../ram/block.ts";
import { SOURCE } from "../report/counters.ts";
import { RAM_FLAG, RAM_SECTION, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { discardCommands, writeCommand } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { writeStreamOpening } from "../stream/header.ts";
import { FEATURES_OURS, helloValue } from "../stream/hello.ts";
import { encodeRamSetup } from "../stream/ram-setup.ts";
import { writeEndSection, writeEof, writeFooter, writeStartSection } from "../stream/section.ts";
import { StreamWriter } from "../stream/writer.ts";
import type { SourceContext } from "./context.ts";
import type { NewlyOwed } from "./owed.ts";
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

function send(context: Written, fill: (writer: StreamWriter) => void): void {
  const writer = new StreamWriter();
  fill(writer);
  context.channel.write(writer.bytes);
}

/** What a command is written on. */
type Written = Pick<SourceContext, "channel">;

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
export function sendCommand(context: Written, command: Command): void {
  send(context, (writer) => writeCommand(writer, command));
}

/**
 * Discards what became owed. QEMU waits for itself for ever if LISTEN comes without a discard before
 * it (docs/wire.md), so something has to be owed by then.
 */
export function sendDiscards(context: SourceContext, owed: NewlyOwed): void {
  const { guest, channel, shared } = context;
  if (owed.every((ranges) => ranges.length === 0)) return;
  const before = channel.bytesWritten;
  send(context, (writer) => {
    for (const [index, ranges] of owed.entries()) {
      const name = guest.blocks[index]?.name ?? "";
      for (const command of discardCommands(name, ranges)) writeCommand(writer, command);
    }
  });
  const bytes = owed.flat().reduce((sum, { length }) => sum + length, 0);
  shared.counters.add(SOURCE.owedPages, bytes / TARGET_PAGE_SIZE);
  shared.counters.add(SOURCE.bytesPackage, channel.bytesWritten - before);
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
