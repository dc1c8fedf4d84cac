/**
 * Sections of the main stream and of a package: the headers before a body, the footer behind it,
 * the end of the stream, and the description that may follow (QEMU's `qemu_loadvm_state_main`).
 *
 * A body has no length. Whoever reads one must know what it holds, read exactly that, and then
 * find the footer with the section's own number: that is the only check there is that both sides
 * agree about the body.
 */
import { RAM_SECTION, SECTION, VM_DESCRIPTION_BYTES_MAX } from "./constants.ts";
import type { StreamReader } from "./reader.ts";
import { hex, refuse } from "./refuse.ts";
import type { StreamWriter } from "./writer.ts";

/** What introduces a body for the first time, or once and for all. */
export interface DeviceSection {
  /** Chosen by the source; PART, END and the footer refer to it. */
  sectionId: number;
  /** Name of the device, "ram" or "0000:00:03.0/e1000". */
  idstr: string;
  /** Tells devices of one name apart. */
  instanceId: number;
  /** Version of the body's format. */
  versionId: number;
}

/** One section header. "command" and "vmDescription" stand before what their own readers read. */
export type SectionHeader =
  | ({ kind: "start" } & DeviceSection)
  | { kind: "part"; sectionId: number }
  | { kind: "end"; sectionId: number }
  | ({ kind: "full" } & DeviceSection)
  | { kind: "command" }
  | { kind: "eof" }
  | { kind: "vmDescription" };

/**
 * Reads the byte that begins a section and the header after it. After "command" comes
 * `readCommand`, after "vmDescription" `readVmDescription`, after a body `readFooter`.
 */
export function readSectionHeader(reader: StreamReader): SectionHeader {
  const at = reader.offset;
  const type = reader.u8();
  switch (type) {
    case SECTION.eof:
      return { kind: "eof" };
    case SECTION.start:
      return { kind: "start", ...readDeviceSection(reader) };
    case SECTION.part:
      return { kind: "part", sectionId: reader.u32() };
    case SECTION.end:
      return { kind: "end", sectionId: reader.u32() };
    case SECTION.full:
      return { kind: "full", ...readDeviceSection(reader) };
    case SECTION.vmDescription:
      return { kind: "vmDescription" };
    case SECTION.command:
      return { kind: "command" };
    default:
      return refuseSection(type, at);
  }
}

function refuseSection(type: number, at: number): never {
  const misplaced: Record<number, string> = {
    [SECTION.subsection]: "A subsection stands where a section should begin",
    [SECTION.configuration]: "A configuration section stands in the middle of the stream",
    [SECTION.footer]: "A footer stands where a section should begin",
  };
  refuse("UNKNOWN_SECTION", misplaced[type] ?? `No section begins with the byte ${hex(type)}`, at);
}

/** Reads the header of a device's only section (FULL); anything else is refused. */
export function readFullSectionHeader(reader: StreamReader): DeviceSection {
  const at = reader.offset;
  const header = readSectionHeader(reader);
  if (header.kind === "full") {
    const { kind: _, ...section } = header;
    return section;
  }
  refuse("UNKNOWN_SECTION", `A device state (FULL) should begin here, not ${header.kind}`, at);
}

function readDeviceSection(reader: StreamReader): DeviceSection {
  const sectionId = reader.u32();
  const idstr = reader.str8();
  const instanceId = reader.u32();
  const versionId = reader.u32();
  return { sectionId, idstr, instanceId, versionId };
}

/** Refuses a section that is not guest memory in the one version there is. */
export function checkRamSection(section: DeviceSection, reader: StreamReader): void {
  const { idstr, instanceId, versionId } = section;
  if (idstr !== RAM_SECTION.idstr || instanceId !== RAM_SECTION.instanceId) {
    refuse(
      "UNKNOWN_SECTION",
      `The main stream has a section of "${idstr}" (instance ${instanceId}), and only "ram" is known`,
      reader.offset,
      "Remove that device from the guest, or migrate without it",
    );
  }
  if (versionId !== RAM_SECTION.versionId) {
    const versions = `version ${versionId}, not ${RAM_SECTION.versionId}`;
    refuse("BAD_VERSION", `The section "ram" has ${versions}`, reader.offset);
  }
}

/** Reads the footer behind the body of section `sectionId`. */
export function readFooter(reader: StreamReader, sectionId: number): void {
  const at = reader.offset;
  const type = reader.u8();
  if (type !== SECTION.footer) {
    refuse(
      "BAD_FOOTER",
      `Section ${sectionId} ends without a footer: the next byte is ${hex(type)}`,
      at,
    );
  }
  const seen = reader.u32();
  if (seen !== sectionId) {
    refuse("BAD_FOOTER", `Section ${sectionId} ends with the footer of section ${seen}`, at);
  }
}

/** Reads the JSON that describes the device state (after the header "vmDescription"). */
export function readVmDescription(reader: StreamReader): string {
  const at = reader.offset;
  const length = reader.u32();
  if (length > VM_DESCRIPTION_BYTES_MAX) {
    refuse("BAD_LENGTH", `The description of the device state has ${length} bytes`, at);
  }
  return reader.text(length);
}

/** Writes the header of a section's first part. */
export function writeStartSection(writer: StreamWriter, section: DeviceSection): void {
  writer.u8(SECTION.start);
  writeDeviceSection(writer, section);
}

/** Writes the header of a device's only section. */
export function writeFullSection(writer: StreamWriter, section: DeviceSection): void {
  writer.u8(SECTION.full);
  writeDeviceSection(writer, section);
}

function writeDeviceSection(writer: StreamWriter, section: DeviceSection): void {
  writer.u32(section.sectionId).str8(section.idstr);
  writer.u32(section.instanceId).u32(section.versionId);
}

/** Writes the header of a further part of section `sectionId`. */
export function writePartSection(writer: StreamWriter, sectionId: number): void {
  writer.u8(SECTION.part).u32(sectionId);
}

/** Writes the header of the last part of section `sectionId`. */
export function writeEndSection(writer: StreamWriter, sectionId: number): void {
  writer.u8(SECTION.end).u32(sectionId);
}

/** Writes what must follow every body. */
export function writeFooter(writer: StreamWriter, sectionId: number): void {
  writer.u8(SECTION.footer).u32(sectionId);
}

/** Writes the byte that ends the sections of a main stream. */
export function writeEof(writer: StreamWriter): void {
  writer.u8(SECTION.eof);
}

/** Writes the description that follows the end when precopy completed alone; one byte a character. */
export function writeVmDescription(writer: StreamWriter, json: string): void {
  writer.u8(SECTION.vmDescription).u32(json.length).text(json);
}
