/**
 * The opening of a main stream: magic, version, and the configuration section with its three
 * subsections (QEMU's `vmstate_configuration`, migration/savevm.c). The section has neither a
 * length nor a footer: whoever reads it looks at the byte that follows, and goes on while that
 * byte announces another subsection.
 */
import {
  CAPABILITIES_MAX,
  MACHINE_NAME_BYTES_MAX,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
  TARGET_PAGE_BITS_MAX,
  TARGET_PAGE_BITS_MIN,
  TARGET_PAGE_SIZE,
  UUID_BYTES,
} from "./constants.ts";
import { describeForeign } from "./foreign.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import type { StreamWriter } from "./writer.ts";

/** What a source says of its machine before anything else. */
export interface StreamConfiguration {
  /** The versioned machine type, "pc-i440fx-7.2". */
  machine: string;
  /** log2 of the target page size; only from targets where it varies, such as Arm. */
  targetPageBits?: number;
  /** The capabilities that are on at the source and change the format: "mapped-ram" and the like. */
  capabilities?: readonly string[];
  /** 16 raw bytes; only where the capability `validate-uuid` is on. */
  uuid?: Uint8Array;
}

const SUBSECTION = {
  targetPageBits: "configuration/target-page-bits",
  capabilities: "configuration/capabilities",
  uuid: "configuration/uuid",
} as const;
const SUBSECTION_VERSION = 1;

/** Reads magic, version and configuration; undefined if the source sends no configuration. */
export function readStreamOpening(reader: StreamReader): StreamConfiguration | undefined {
  readStreamHeader(reader);
  // Only machine types older than 2.4, and send-configuration=off, leave it out.
  return reader.peekU8() === SECTION.configuration ? readConfiguration(reader) : undefined;
}

/** Writes magic, version and, if there is one, the configuration. */
export function writeStreamOpening(
  writer: StreamWriter,
  configuration: StreamConfiguration | undefined,
): void {
  writer.u32(STREAM_MAGIC).u32(STREAM_VERSION);
  if (configuration !== undefined) writeConfiguration(writer, configuration);
}

function readStreamHeader(reader: StreamReader): void {
  const magicAt = reader.offset;
  const magic = reader.u32();
  if (magic !== STREAM_MAGIC) {
    refuse(
      "BAD_MAGIC",
      `This is not a QEMU migration stream: it looks like ${describeForeign(magic)}`,
      magicAt,
      "check the port or the file, and that the other side is a migration source",
    );
  }
  const version = reader.u32();
  if (version !== STREAM_VERSION) {
    refuse(
      "BAD_VERSION",
      `The migration stream has version ${version}, not ${STREAM_VERSION}`,
      magicAt + 4,
    );
  }
}

function readConfiguration(reader: StreamReader): StreamConfiguration {
  reader.u8();
  const lengthAt = reader.offset;
  const length = reader.u32();
  if (length === 0 || length > MACHINE_NAME_BYTES_MAX) {
    refuse("BAD_LENGTH", `The machine type name has ${length} bytes`, lengthAt);
  }
  const configuration: StreamConfiguration = { machine: reader.text(length) };
  while (reader.peekU8() === SECTION.subsection) readSubsection(reader, configuration);
  return configuration;
}

function readSubsection(reader: StreamReader, configuration: StreamConfiguration): void {
  const at = reader.offset;
  reader.u8();
  const name = reader.str8();
  const version = reader.u32();
  if (version !== SUBSECTION_VERSION) {
    refuse("BAD_VERSION", `The subsection "${name}" has version ${version}, not 1`, at);
  }
  if (name === SUBSECTION.targetPageBits) {
    refuseRepeat(configuration.targetPageBits, name, at);
    configuration.targetPageBits = readTargetPageBits(reader);
  } else if (name === SUBSECTION.capabilities) {
    refuseRepeat(configuration.capabilities, name, at);
    configuration.capabilities = readCapabilities(reader);
  } else if (name === SUBSECTION.uuid) {
    refuseRepeat(configuration.uuid, name, at);
    configuration.uuid = reader.take(UUID_BYTES);
  } else {
    refuse("BAD_CONFIGURATION", `The configuration has an unknown subsection "${name}"`, at);
  }
}

function refuseRepeat(known: unknown, name: string, at: number): void {
  if (known === undefined) return;
  refuse("BAD_CONFIGURATION", `The configuration has the subsection "${name}" twice`, at);
}

function readTargetPageBits(reader: StreamReader): number {
  const at = reader.offset;
  const bits = reader.u32();
  if (bits < TARGET_PAGE_BITS_MIN || bits > TARGET_PAGE_BITS_MAX) {
    const range = `${TARGET_PAGE_BITS_MIN} to ${TARGET_PAGE_BITS_MAX}`;
    refuse("BAD_VALUE", `The target page size has ${bits} bits, which is not in ${range}`, at);
  }
  return bits;
}

function readCapabilities(reader: StreamReader): string[] {
  const at = reader.offset;
  const count = reader.u32();
  if (count > CAPABILITIES_MAX) {
    refuse("BAD_LENGTH", `The configuration lists ${count} capabilities`, at);
  }
  return Array.from({ length: count }, () => reader.str8());
}

function writeConfiguration(writer: StreamWriter, configuration: StreamConfiguration): void {
  const { machine, targetPageBits, capabilities, uuid } = configuration;
  writer.u8(SECTION.configuration).u32(machine.length).text(machine);
  if (targetPageBits !== undefined) {
    writeSubsectionHeader(writer, SUBSECTION.targetPageBits);
    writer.u32(targetPageBits);
  }
  if (capabilities !== undefined) {
    writeSubsectionHeader(writer, SUBSECTION.capabilities);
    writer.u32(capabilities.length);
    for (const name of capabilities) writer.str8(name);
  }
  if (uuid !== undefined) {
    if (uuid.length !== UUID_BYTES) throw new RangeError(`a UUID of ${uuid.length} bytes`);
    writeSubsectionHeader(writer, SUBSECTION.uuid);
    writer.raw(uuid);
  }
}

function writeSubsectionHeader(writer: StreamWriter, name: string): void {
  writer.u8(SECTION.subsection).str8(name).u32(SUBSECTION_VERSION);
}

/** Bytes of a target page of the machine that sent `configuration`. */
export function targetPageSizeOf(configuration: StreamConfiguration | undefined): number {
  const bits = configuration?.targetPageBits;
  return bits === undefined ? TARGET_PAGE_SIZE : 2 ** bits;
}
