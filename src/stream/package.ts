/**
 * The package: what the command PACKAGED announces. It is a stream of its own without a header, in
 * this order: LISTEN, the state of every device (FULL sections), PINGs, RUN (QEMU's
 * `postcopy_start`). It is sent as one block so that the destination has all of it before it lets
 * go of the main stream, which from LISTEN on carries pages only.
 *
 * A receiver that keeps the guest rather than run it does not know the devices, and the bodies have
 * no length. It can still answer the PINGs, as they stand at the end, where all has a fixed length.
 */
import { COMMAND, PACKAGE_BYTES_MAX, PACKAGE_PINGS_MAX, SECTION } from "./constants.ts";
import { writeCommand } from "./command.ts";
import { refuse } from "./refuse.ts";
import { StreamWriter } from "./writer.ts";

/** What stands behind the device state. */
export interface PackageTail {
  /** Values of the PINGs, in the order of the stream. */
  pings: number[];
  /** One past the last byte of device state. */
  devicesEnd: number;
}

/** LISTEN and RUN: the section byte, a u16 number, a u16 length 0. */
const EMPTY_COMMAND_BYTES = 5;
/** PING: the same, and a u32 value. */
const PING_BYTES = 9;

/** The PING at the end of a package of ours, with QEMU's value; nobody waits for its answer. */
const PACKAGE_PING = 3;

/** Where the device state begins in every package. */
export const PACKAGE_DEVICES_START = EMPTY_COMMAND_BYTES;

/** Refuses a package that does not begin with LISTEN. */
export function checkPackageHead(bytes: Uint8Array): void {
  if (isCommand(bytes, 0, COMMAND.postcopyListen, 0)) return;
  refuse("BAD_PACKAGE", "The package of device state does not begin with POSTCOPY_LISTEN", 0);
}

/**
 * Finds what stands behind the device state, reading backwards. Offsets count from the start of
 * the package. Device state is not mistaken for a PING: it ends with a footer, whose first byte
 * (0x7e) would stand where the PING has the 4 of its length.
 */
export function scanPackageTail(bytes: Uint8Array): PackageTail {
  const runAt = bytes.length - EMPTY_COMMAND_BYTES;
  if (runAt < PACKAGE_DEVICES_START || !isCommand(bytes, runAt, COMMAND.postcopyRun, 0)) {
    const at = Math.max(runAt, 0);
    refuse("BAD_PACKAGE", "The package of device state does not end with POSTCOPY_RUN", at);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pings: number[] = [];
  let devicesEnd = runAt;
  for (;;) {
    const pingAt = devicesEnd - PING_BYTES;
    if (pingAt < PACKAGE_DEVICES_START || !isCommand(bytes, pingAt, COMMAND.ping, 4)) break;
    if (pings.length === PACKAGE_PINGS_MAX) {
      refuse("BAD_PACKAGE", `The package has more than ${PACKAGE_PINGS_MAX} PINGs`, pingAt);
    }
    pings.unshift(view.getUint32(pingAt + EMPTY_COMMAND_BYTES));
    devicesEnd = pingAt;
  }
  return { pings, devicesEnd };
}

/** Whether the five bytes at `at` begin that command with a payload of `length` (< 256) bytes. */
function isCommand(bytes: Uint8Array, at: number, number: number, length: number): boolean {
  const expected = [SECTION.command, 0, number, 0, length];
  return expected.every((byte, i) => bytes[at + i] === byte);
}

/** Writes the content of a package: LISTEN, whatever `writeDevices` writes, the PINGs, RUN. */
export function writePackage(
  writer: StreamWriter,
  writeDevices: (writer: StreamWriter) => void,
  pings: readonly number[],
): void {
  writeCommand(writer, { kind: "postcopyListen" });
  writeDevices(writer);
  for (const value of pings) writeCommand(writer, { kind: "ping", value });
  writeCommand(writer, { kind: "postcopyRun" });
}

/**
 * The package of a guest that completed in precopy, whose device state (FULL sections) came behind
 * memory: with it the guest is brought back by postcopy like any other. `at` is where the state
 * stood in the stream.
 */
export function packageOfSections(sections: Uint8Array, at: number): Uint8Array {
  const writer = new StreamWriter();
  writePackage(writer, (inner) => inner.raw(sections), [PACKAGE_PING]);
  const { length } = writer.bytes;
  if (length > PACKAGE_BYTES_MAX) {
    refuse("BAD_LENGTH", `The device state makes a package of ${length} bytes`, at);
  }
  return writer.bytes.slice();
}
