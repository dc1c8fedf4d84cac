/**
 * Commands of the forward stream (QEMU's `MIG_CMD_*`, migration/savevm.c): the byte 0x08, a u16
 * number, a u16 length, and that many bytes. Most have one fixed length, which is checked before
 * anything of the payload is read; the two that carry a name say how long it is inside.
 */
import {
  COMMAND,
  DISCARD_RANGES_MAX,
  NAME_BYTES_MAX,
  PACKAGE_BYTES_MAX,
  SECTION,
} from "./constants.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import type { StreamWriter } from "./writer.ts";

/** Bytes [start, start + length) of a RAM block. */
export interface ByteRange {
  start: number;
  length: number;
}

/** One command. */
export type Command =
  /** The destination may write on the return path from now on. */
  | { kind: "openReturnPath" }
  /** Asks for a PONG with the same value. */
  | { kind: "ping"; value: number }
  /**
   * Postcopy will come. `pageSizeSummary` is the bitwise OR of the page sizes of all RAM blocks.
   * `ram` is missing when only dirty bitmaps of disks will be postcopied.
   */
  | { kind: "postcopyAdvise"; ram?: { pageSizeSummary: number; targetPageSize: number } }
  /** First in a package: from now on pages arrive while device state is loaded. */
  | { kind: "postcopyListen" }
  /** Last in a package: the guest may run. */
  | { kind: "postcopyRun" }
  /** The destination must forget these ranges: they are stale there, and will be sent again. */
  | { kind: "postcopyRamDiscard"; block: string; ranges: readonly ByteRange[] }
  /** `size` bytes of nested sections and commands follow, outside this command's length. */
  | { kind: "packaged"; size: number }
  | { kind: "enableColo" }
  /** Recovery: the source is ready to go on; the destination answers RESUME_ACK. */
  | { kind: "postcopyResume" }
  /** Recovery: asks for the received bitmap of a block. */
  | { kind: "recvBitmap"; block: string }
  /** The source's guest has stopped (machine types of QEMU 10.0 and later). */
  | { kind: "switchoverStart" };

interface Shape {
  name: string;
  /** The one length the payload can have; undefined where the decoder checks. */
  length?: number;
}

const ADVISE_RAM_BYTES = 16;
const DISCARD_RANGE_BYTES = 16;
/** Version, length of the name, terminator: what a discard has beside its name and ranges. */
const DISCARD_FIXED_BYTES = 3;
const DISCARD_VERSION = 0;

const SHAPES: ReadonlyMap<number, Shape> = new Map<number, Shape>([
  [COMMAND.openReturnPath, { name: "OPEN_RETURN_PATH", length: 0 }],
  [COMMAND.ping, { name: "PING", length: 4 }],
  [COMMAND.postcopyAdvise, { name: "POSTCOPY_ADVISE" }],
  [COMMAND.postcopyListen, { name: "POSTCOPY_LISTEN", length: 0 }],
  [COMMAND.postcopyRun, { name: "POSTCOPY_RUN", length: 0 }],
  [COMMAND.postcopyRamDiscard, { name: "POSTCOPY_RAM_DISCARD" }],
  [COMMAND.packaged, { name: "PACKAGED", length: 4 }],
  [COMMAND.enableColo, { name: "ENABLE_COLO", length: 0 }],
  [COMMAND.postcopyResume, { name: "POSTCOPY_RESUME", length: 0 }],
  [COMMAND.recvBitmap, { name: "RECV_BITMAP" }],
  [COMMAND.switchoverStart, { name: "SWITCHOVER_START", length: 0 }],
]);

/** QEMU's name of a command, by its number or its kind, for messages. */
export function commandName(command: number | Command["kind"]): string {
  const number = typeof command === "number" ? command : COMMAND[command];
  return SHAPES.get(number)?.name ?? `command ${number}`;
}

/** Reads a command whose first byte (0x08) has been read. */
export function readCommand(reader: StreamReader): Command {
  const at = reader.offset - 1;
  const number = reader.u16();
  const shape = SHAPES.get(number);
  if (shape === undefined) {
    refuse(
      "UNKNOWN_COMMAND",
      `The stream has an unknown command, number ${number}`,
      at,
      "The source may be newer than this program: try an older machine type, or update",
    );
  }
  const length = reader.u16();
  if (shape.length !== undefined && length !== shape.length) {
    refuseLength(number, `has ${length} bytes, not ${shape.length}`, at);
  }
  return readPayload(reader, number, length, at);
}

function readPayload(reader: StreamReader, number: number, length: number, at: number): Command {
  switch (number) {
    case COMMAND.openReturnPath:
      return { kind: "openReturnPath" };
    case COMMAND.ping:
      return { kind: "ping", value: reader.u32() };
    case COMMAND.postcopyAdvise:
      return readAdvise(reader, length, at);
    case COMMAND.postcopyListen:
      return { kind: "postcopyListen" };
    case COMMAND.postcopyRun:
      return { kind: "postcopyRun" };
    case COMMAND.postcopyRamDiscard:
      return readDiscard(reader, length, at);
    case COMMAND.packaged:
      return readPackaged(reader, at);
    case COMMAND.enableColo:
      return { kind: "enableColo" };
    case COMMAND.postcopyResume:
      return { kind: "postcopyResume" };
    case COMMAND.recvBitmap:
      return { kind: "recvBitmap", block: readOnlyName(reader, length, at) };
    case COMMAND.switchoverStart:
      return { kind: "switchoverStart" };
    default:
      throw new Error(`command ${number} has a shape and no decoder`);
  }
}

function refuseLength(number: number, problem: string, at: number): never {
  refuse("BAD_LENGTH", `The command ${commandName(number)} ${problem}`, at);
}

function readAdvise(reader: StreamReader, length: number, at: number): Command {
  if (length === 0) return { kind: "postcopyAdvise" };
  if (length !== ADVISE_RAM_BYTES) {
    refuseLength(COMMAND.postcopyAdvise, `has ${length} bytes, not 0 or 16`, at);
  }
  const pageSizeSummary = reader.u64("page size summary of POSTCOPY_ADVISE");
  const targetPageSize = reader.u64("target page size of POSTCOPY_ADVISE");
  return { kind: "postcopyAdvise", ram: { pageSizeSummary, targetPageSize } };
}

function readDiscard(reader: StreamReader, length: number, at: number): Command {
  const number = COMMAND.postcopyRamDiscard;
  if (length < DISCARD_FIXED_BYTES + 1 + DISCARD_RANGE_BYTES) {
    refuseLength(number, `has ${length} bytes, too few for a name and a range`, at);
  }
  const version = reader.u8();
  if (version !== DISCARD_VERSION) {
    refuse("BAD_VERSION", `POSTCOPY_RAM_DISCARD has version ${version}, not 0`, at);
  }
  const nameLength = reader.u8();
  const rangeBytes = length - DISCARD_FIXED_BYTES - nameLength;
  if (nameLength === 0) refuseLength(number, "names no RAM block", at);
  if (rangeBytes < DISCARD_RANGE_BYTES || rangeBytes % DISCARD_RANGE_BYTES !== 0) {
    refuseLength(number, `has ${rangeBytes} bytes of ranges, no multiple of 16`, at);
  }
  const block = reader.text(nameLength);
  const terminator = reader.u8();
  if (terminator !== 0) {
    refuse("BAD_VALUE", `The name of a block to discard ends with byte ${terminator}, not 0`, at);
  }
  const count = rangeBytes / DISCARD_RANGE_BYTES;
  const ranges = Array.from({ length: count }, () => readRange(reader));
  return { kind: "postcopyRamDiscard", block, ranges };
}

function readRange(reader: StreamReader): ByteRange {
  const at = reader.offset;
  const start = reader.u64("start of a discarded range");
  const length = reader.u64("length of a discarded range");
  if (!Number.isSafeInteger(start + length)) {
    refuse("BAD_VALUE", `A discarded range of ${length} bytes begins at ${start}`, at);
  }
  return { start, length };
}

function readPackaged(reader: StreamReader, at: number): Command {
  const size = reader.u32();
  if (size > PACKAGE_BYTES_MAX) {
    const limit = `above the limit of ${PACKAGE_BYTES_MAX}`;
    refuse("BAD_LENGTH", `The package of device state has ${size} bytes, ${limit}`, at);
  }
  return { kind: "packaged", size };
}

function readOnlyName(reader: StreamReader, length: number, at: number): string {
  if (length < 2) refuseLength(COMMAND.recvBitmap, "names no RAM block", at);
  const nameLength = reader.u8();
  if (nameLength !== length - 1) {
    refuseLength(COMMAND.recvBitmap, `has ${length} bytes and a name of ${nameLength}`, at);
  }
  return reader.text(nameLength);
}

/** Writes a command, its first byte (0x08) included. Values out of range are programmer errors. */
export function writeCommand(writer: StreamWriter, command: Command): void {
  writer.u8(SECTION.command).u16(COMMAND[command.kind]);
  switch (command.kind) {
    case "ping":
      writer.u16(4).u32(command.value);
      break;
    case "packaged":
      if (command.size > PACKAGE_BYTES_MAX) throw new RangeError(`package of ${command.size}`);
      writer.u16(4).u32(command.size);
      break;
    case "postcopyAdvise":
      writer.u16(command.ram === undefined ? 0 : ADVISE_RAM_BYTES);
      if (command.ram !== undefined) {
        writer.u64(command.ram.pageSizeSummary).u64(command.ram.targetPageSize);
      }
      break;
    case "postcopyRamDiscard":
      writeDiscard(writer, command.block, command.ranges);
      break;
    case "recvBitmap":
      checkName(command.block);
      writer.u16(1 + command.block.length).str8(command.block);
      break;
    default:
      writer.u16(0);
  }
}

function writeDiscard(writer: StreamWriter, block: string, ranges: readonly ByteRange[]): void {
  checkName(block);
  if (ranges.length === 0 || ranges.length > DISCARD_RANGES_MAX) {
    throw new RangeError(`${ranges.length} ranges in one discard`);
  }
  writer.u16(DISCARD_FIXED_BYTES + block.length + ranges.length * DISCARD_RANGE_BYTES);
  writer.u8(DISCARD_VERSION).str8(block).u8(0);
  for (const range of ranges) writer.u64(range.start).u64(range.length);
}

function checkName(block: string): void {
  if (block.length === 0 || block.length > NAME_BYTES_MAX) {
    throw new RangeError(`a RAM block name of ${block.length} bytes`);
  }
}

/** The commands that discard `ranges` of `block`, each with as many ranges as QEMU puts in one. */
export function discardCommands(block: string, ranges: readonly ByteRange[]): Command[] {
  const commands: Command[] = [];
  for (let at = 0; at < ranges.length; at += DISCARD_RANGES_MAX) {
    const part = ranges.slice(at, at + DISCARD_RANGES_MAX);
    commands.push({ kind: "postcopyRamDiscard", block, ranges: part });
  }
  return commands;
}
