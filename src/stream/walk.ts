/**
 * Reads a whole stream from its first byte to its last, and tells a visitor what stands where. It
 * knows the two ways in which a migration ends, and the files of each:
 *
 * - postcopy: commands, the package, pages behind it, EOF. Device state lies in the package.
 * - precopy: after RAM's END the state of all devices, EOF, and a description of that state. A file
 *   that QEMU or libvirt saved is one of these, also with the capability `mapped-ram`.
 *
 * Offsets count from the first byte of whatever the reader reads. Bytes that cannot be are refused
 * with a StreamError that names the offset.
 */
import { readCommand } from "./command.ts";
import type { Command } from "./command.ts";
import { DEVICE_TAIL_BYTES_MAX, refuseLongTail, splitDeviceTail } from "./device-tail.ts";
import { skipEarlyDevice } from "./early-devices.ts";
import { readStreamOpening, targetPageSizeOf } from "./header.ts";
import type { StreamConfiguration } from "./header.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import { checkRamSection, readFooter, readSectionHeader } from "./section.ts";
import type { DeviceSection, SectionHeader } from "./section.ts";
import { RamWalk } from "./walk-ram.ts";
import type { RamVisitor } from "./walk-ram.ts";

export type { PageKind, WalkedBlock, WalkedPage } from "./walk-ram.ts";

/** A section of guest memory that has gone by. */
export interface WalkedSection {
  kind: "start" | "part" | "end";
  sectionId: number;
  at: number;
  /** One past its footer. */
  endAt: number;
}

/** What a walk tells; each `at` is a stream offset. Bytes that are handed over may be kept. */
export interface StreamVisitor extends RamVisitor {
  /** Magic, version and configuration; the sections begin at `endAt`. */
  opening?(configuration: StreamConfiguration | undefined, endAt: number): void;
  /** A command of the main stream; those within the package are not told. */
  command?(command: Command, at: number, endAt: number): void;
  /** The content of PACKAGED, from LISTEN to RUN; `at` is its first byte. */
  package?(bytes: Uint8Array, at: number): void;
  /**
   * A device whose state comes ahead of memory, from its header to one past its footer. A visitor
   * without this cannot do with such a stream, and it is refused.
   */
  earlyDevice?(section: DeviceSection, at: number, endAt: number): void;
  /** A RAM section, before its pages. */
  sectionBegins?(kind: WalkedSection["kind"], at: number): void;
  /** A RAM section, after its pages. */
  section?(section: WalkedSection): void;
  /** What there is of a package, or of all that follows RAM, where it is not whole; then it throws. */
  unfinished?(bytes: Uint8Array, at: number): void;
  /** The state of all devices of a stream that completed in precopy: FULL sections, unread. */
  devices?(bytes: Uint8Array, at: number): void;
  eof?(at: number): void;
  vmDescription?(json: string, at: number): void;
}

/** What a walk came to. */
export interface WalkEnd {
  /** Whether the guest was switched over by a package, or completed in precopy. */
  kind: "precopy" | "postcopy";
  /** Bytes from the reader's first to the last one of the stream. */
  end: number;
}

/**
 * Walks the stream. The reader's buffer must hold `ramRecordBytesMax`, and the reader must know its
 * end (`ReaderAbilities.atEnd`). @throws StreamError, and whatever the visitor throws.
 */
export function walkStream(reader: StreamReader, visitor: StreamVisitor): WalkEnd {
  return new StreamWalk(reader, visitor).walk();
}

/** Most devices whose state comes ahead of memory; a machine has one or two of such a kind. */
const EARLY_DEVICES_MAX = 1024;

class StreamWalk {
  readonly #reader: StreamReader;
  readonly #visitor: StreamVisitor;
  #ram: RamWalk | undefined;
  /** The number of the RAM section, once START was there; it has no further sections after END. */
  #sectionId: number | undefined;
  #sections = 0;
  #ramEnded = false;
  #earlyDevices = 0;
  #postcopy = false;

  constructor(reader: StreamReader, visitor: StreamVisitor) {
    this.#reader = reader;
    this.#visitor = visitor;
  }

  walk(): WalkEnd {
    const configuration = readStreamOpening(this.#reader);
    this.#visitor.opening?.(configuration, this.#reader.offset);
    const capabilities = configuration?.capabilities ?? [];
    const targetPageSize = targetPageSizeOf(configuration);
    this.#ram = new RamWalk(this.#reader, this.#visitor, targetPageSize, capabilities);
    for (;;) {
      if (this.#ramEnded && !this.#postcopy) {
        this.#devices();
        return { kind: "precopy", end: this.#reader.offset };
      }
      const at = this.#reader.offset;
      const header = readSectionHeader(this.#reader);
      if (header.kind === "eof") {
        this.#finish(at);
        return { kind: "postcopy", end: this.#reader.offset };
      }
      this.#section(header, at, this.#ram);
    }
  }

  #section(header: SectionHeader, at: number, ram: RamWalk): void {
    switch (header.kind) {
      case "command":
        this.#command(at, ram);
        break;
      case "start":
        if (this.#sectionId !== undefined) refuseSecond(header.idstr, at);
        checkRamSection(header, this.#reader);
        this.#sectionId = header.sectionId;
        this.#body("start", header.sectionId, at, ram);
        break;
      case "part":
      case "end":
        if (header.sectionId !== this.#sectionId || this.#ramEnded) {
          const problem = `A part of section ${header.sectionId} comes, which is not under way`;
          refuse("UNKNOWN_SECTION", problem, at);
        }
        this.#body(header.kind, header.sectionId, at, ram);
        this.#ramEnded = header.kind === "end";
        break;
      case "full":
        this.#early(header, at);
        break;
      case "eof":
      case "vmDescription":
        refuse("UNKNOWN_SECTION", `A section ${header.kind} stands before the end`, at);
    }
  }

  #early(section: DeviceSection, at: number): void {
    if (this.#visitor.earlyDevice === undefined || this.#postcopy) refuseEarly(section, at);
    if (++this.#earlyDevices > EARLY_DEVICES_MAX) {
      const what = `more than ${EARLY_DEVICES_MAX} devices ahead of memory`;
      refuse("BAD_LENGTH", `The stream has ${what}`, at);
    }
    skipEarlyDevice(this.#reader, section.sectionId, this.#sectionId);
    this.#visitor.earlyDevice(section, at, this.#reader.offset);
  }

  #body(kind: WalkedSection["kind"], sectionId: number, at: number, ram: RamWalk): void {
    this.#visitor.sectionBegins?.(kind, at);
    ram.body(this.#sections++, this.#postcopy);
    if (ram.blocks === undefined) {
      refuse("BAD_FLAGS", "The first section of RAM does not list its blocks", at);
    }
    readFooter(this.#reader, sectionId);
    this.#visitor.section?.({ kind, sectionId, at, endAt: this.#reader.offset });
  }

  #command(at: number, ram: RamWalk): void {
    const command = readCommand(this.#reader);
    this.#visitor.command?.(command, at, this.#reader.offset);
    if (command.kind === "postcopyAdvise") ram.advised(command.ram?.pageSizeSummary);
    if (command.kind !== "packaged") return;
    if (this.#postcopy) refuse("BAD_PACKAGE", "The stream has a second package", at);
    this.#postcopy = true;
    const packageAt = this.#reader.offset;
    const bytes = this.#orUnfinished(packageAt, (parts) => {
      takeInto(parts, this.#reader, command.size);
      return joined(parts);
    });
    this.#visitor.package?.(bytes, packageAt);
  }

  /** Everything behind RAM of a stream that completed in precopy. */
  #devices(): void {
    const at = this.#reader.offset;
    const { bytes, devicesEnd, vmDescription } = this.#orUnfinished(at, (parts) => {
      takeRest(parts, this.#reader);
      const rest = joined(parts);
      return { bytes: rest, ...splitDeviceTail(rest, at) };
    });
    this.#visitor.devices?.(bytes.subarray(0, devicesEnd), at);
    this.#visitor.eof?.(at + devicesEnd);
    if (vmDescription === undefined) return;
    this.#visitor.vmDescription?.(vmDescription.json, at + vmDescription.at);
  }

  /** What `take` makes of bytes that it collects; if it fails, the visitor hears what there was. */
  #orUnfinished<Result>(at: number, take: (parts: Uint8Array[]) => Result): Result {
    const parts: Uint8Array[] = [];
    try {
      return take(parts);
    } catch (error) {
      this.#visitor.unfinished?.(joined(parts), at);
      throw error;
    }
  }

  /** EOF, with which a stream after the switch ends. */
  #finish(at: number): void {
    if (!this.#postcopy || !this.#ramEnded) {
      refuse("UNKNOWN_SECTION", "The stream ends (EOF) before guest memory has", at);
    }
    if (!this.#reader.ended) {
      refuse("UNKNOWN_SECTION", "Something follows the end of the stream", this.#reader.offset);
    }
    this.#visitor.eof?.(at);
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** Takes `count` bytes as they come. */
function takeInto(parts: Uint8Array[], reader: StreamReader, count: number): void {
  for (let rest = count; rest > 0;) {
    if (reader.available === 0) reader.ensure(1);
    const part = reader.take(Math.min(rest, reader.available));
    parts.push(part);
    rest -= part.length;
  }
}

function takeRest(parts: Uint8Array[], reader: StreamReader): void {
  const at = reader.offset;
  while (!reader.ended) {
    if (reader.offset - at > DEVICE_TAIL_BYTES_MAX) refuseLongTail(at);
    parts.push(reader.take(reader.available));
  }
}

function refuseSecond(idstr: string, at: number): never {
  const problem = `The stream has a section of "${idstr}" beside the one of guest memory`;
  const hint = "remove that device from the guest, or save it without";
  refuse("UNKNOWN_SECTION", problem, at, hint);
}

/** Device state has no length: among the sections of memory nobody can tell where it ends. */
function refuseEarly(section: DeviceSection, at: number): never {
  const problem = `The state of "${section.idstr}" stands before or between guest memory`;
  const hint = "remove that device (such as virtio-mem) from the guest, or save it without";
  refuse("UNKNOWN_SECTION", problem, at, hint);
}
