/**
 * What follows guest memory in a stream that completes in precopy: the state of all devices, EOF,
 * and mostly a description of that state in JSON (QEMU's `qemu_savevm_state_complete_precopy`).
 *
 * Device state has no length, so its end is found from behind: the description is the last thing
 * of all, it has a length, and no byte of EOF and its header can stand within JSON.
 */
import { PACKAGE_BYTES_MAX, SECTION, VM_DESCRIPTION_BYTES_MAX } from "./constants.ts";
import { byteString } from "./reader.ts";
import { refuse } from "./refuse.ts";

/** Longest such tail: device state and its description. */
export const DEVICE_TAIL_BYTES_MAX = PACKAGE_BYTES_MAX + VM_DESCRIPTION_BYTES_MAX;

/** The parts of such a tail; offsets count from its first byte. */
export interface DeviceTail {
  /** One past the last byte of device state, and where EOF stands. */
  devicesEnd: number;
  /** The description; undefined where the machine suppresses it (`suppress-vmdesc=on`). */
  vmDescription?: { at: number; json: string };
}

export const FOOTER_BYTES = 5;
/** The byte of EOF, that of the description, and the length of the description. */
export const BETWEEN_BYTES = 6;
const BRACE = 0x7b;
/** What every description begins with, whatever the machine. */
const JSON_START = '{"';

/**
 * Splits the bytes between the end of RAM's last section and the end of the stream; `base` is the
 * stream offset of the first. Refuses what does not end as QEMU ends a stream, as that is what a
 * stream looks like that was cut off.
 */
export function splitDeviceTail(bytes: Uint8Array, base: number): DeviceTail {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const least = Math.max(0, bytes.length - BETWEEN_BYTES - VM_DESCRIPTION_BYTES_MAX);
  for (let at = bytes.length - BETWEEN_BYTES - 2; at >= least; at--) {
    // No JSON holds a NUL, so no description begins before the last of them: looked at is little.
    if (bytes[at + BETWEEN_BYTES] === 0) break;
    if (!isEofAndDescription(bytes, at)) continue;
    const length = view.getUint32(at + 2);
    if (length !== bytes.length - at - BETWEEN_BYTES) continue;
    const json = byteString(bytes, at + BETWEEN_BYTES, length);
    if (!isJson(json)) continue;
    checkDevices(bytes, at, base);
    return { devicesEnd: at, vmDescription: { at: at + 1, json } };
  }
  if (endsUndescribed(bytes)) {
    const devicesEnd = bytes.length - 1;
    checkDevices(bytes, devicesEnd, base);
    return { devicesEnd };
  }
  refuseEnd(bytes, view, base);
}

/** Whether EOF and a description may begin at `at`. */
export function isEofAndDescription(bytes: Uint8Array, at: number): boolean {
  return (
    bytes[at + 1] === SECTION.vmDescription &&
    bytes[at] === SECTION.eof &&
    bytes[at + BETWEEN_BYTES] === BRACE
  );
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether the last bytes are a footer, whose section begins somewhere before, and EOF: all that
 * stands at the end where there is no description.
 */
export function endsUndescribed(bytes: Uint8Array): boolean {
  const footerAt = bytes.length - 1 - FOOTER_BYTES;
  if (footerAt < 0 || bytes[footerAt] !== SECTION.footer || bytes.at(-1) !== SECTION.eof) {
    return false;
  }
  const start = Buffer.from(bytes.slice(footerAt, footerAt + FOOTER_BYTES));
  start[0] = SECTION.full;
  return Buffer.from(bytes.buffer, bytes.byteOffset, footerAt).includes(start);
}

/** Devices are FULL sections, one behind the other, so the first and the last byte are known. */
function checkDevices(bytes: Uint8Array, end: number, base: number): void {
  if (end === 0) return;
  if (bytes[0] !== SECTION.full) {
    refuse("UNKNOWN_SECTION", "The state of a device should begin here, and does not", base);
  }
  if (end < FOOTER_BYTES || bytes[end - FOOTER_BYTES] !== SECTION.footer) {
    refuse("BAD_FOOTER", "The state of the last device ends without a footer", base + end);
  }
}

/** Refuses a stream in which more follows memory than can be. */
export function refuseLongTail(at: number): never {
  const limit = `more than ${DEVICE_TAIL_BYTES_MAX} bytes behind guest memory`;
  refuse("BAD_LENGTH", `The stream has ${limit}`, at);
}

function refuseEnd(bytes: Uint8Array, view: DataView, base: number): never {
  const end = base + bytes.length;
  const hint = "it was cut off while it was written or copied";
  const header = Buffer.from([SECTION.eof, SECTION.vmDescription]);
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = all.lastIndexOf(header);
  if (at >= 0 && at + BETWEEN_BYTES + 2 <= bytes.length) {
    const text = byteString(bytes, at + BETWEEN_BYTES, JSON_START.length);
    const missing = view.getUint32(at + 2) - (bytes.length - at - BETWEEN_BYTES);
    if (text === JSON_START && missing > 0) {
      const problem = `ends ${missing} bytes before the end of its description`;
      refuse("TRUNCATED", `The stream ${problem}`, end, hint);
    }
  }
  refuse("TRUNCATED", "The stream ends within the state of the devices", end, hint);
}
