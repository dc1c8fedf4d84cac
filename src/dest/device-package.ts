/**
 * The package of device state (stream/package.ts), which is a stream of its own: LISTEN, then device
 * after device, then RUN. Each device may need pages that are not here yet.
 */
import { readCommand } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { checkPackageHead, scanPackageTail } from "../stream/package.ts";
import { StreamReader } from "../stream/reader.ts";
import { readSectionHeader } from "../stream/section.ts";
import type { SectionHeader } from "../stream/section.ts";
import { StreamError } from "../util/errors.ts";

/** Acts on a command. */
type TakeCommand = (command: Command) => void;

/** Who takes what is in a package of devices that are known here. */
export interface PackageTaker {
  take: TakeCommand;
  /** The body of a section, and its footer. */
  load: (section: SectionHeader, reader: StreamReader) => void;
  /** Whether RUN was taken. */
  hasRun: () => boolean;
}

/** Loads a package. RUN ends it whatever stands behind it, as in QEMU (LOADVM_QUIT). */
export function loadPackage(bytes: Uint8Array, { take, load, hasRun }: PackageTaker): void {
  checkPackageHead(bytes);
  const reader = new StreamReader(bytes, bytes.length);
  while (reader.available > 0 && !hasRun()) {
    const section = readSectionHeader(reader);
    switch (section.kind) {
      case "command":
        take(readCommand(reader));
        break;
      case "start":
      case "part":
      case "end":
        // Its pages are in the main stream, which the listen thread reads by now.
        throw new StreamError(
          "BAD_PACKAGE",
          `The package of device state has a section of memory (${section.kind})`,
        );
      default:
        load(section, reader);
    }
  }
}

/** Keeps a package, which stays opaque: its PINGs are found from the end and answered. */
export function keepPackage(
  bytes: Uint8Array,
  keep: (bytes: Uint8Array) => void,
  take: TakeCommand,
): void {
  checkPackageHead(bytes);
  const { pings } = scanPackageTail(bytes);
  keep(bytes);
  take({ kind: "postcopyListen" });
  for (const value of pings) take({ kind: "ping", value });
  take({ kind: "postcopyRun" });
}
