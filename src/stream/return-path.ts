/**
 * The return path: messages from the destination to the source on the main connection (QEMU's
 * `MIG_RP_MSG_*`). Each is a u16 type, a u16 length and that many bytes.
 *
 * Page requests are the one thing here that happens once a fault, so they are written and decoded
 * without allocation: `putPageRequest`, `decodeReturnPath`. The rest goes through the union.
 */
import {
  NAME_BYTES_MAX,
  RESUME_ACK_VALUE,
  RETURN_PATH,
  RETURN_PATH_BYTES_MAX,
} from "./constants.ts";
import { describeForeign } from "./foreign.ts";
import { putStr8, putU64 } from "./put.ts";
import { byteString, type StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import type { StreamWriter } from "./writer.ts";

/** What SHUT says. A QEMU takes anything but 0 for the second, also where its guest has run. */
export const SHUT_STATUS = {
  /** The guest is whole at the destination. */
  done: 0,
  /** It does not run there, and never will. */
  refused: 1,
  /** It ran there and is no more, and nothing of it is kept that could be gone on with. Said to no QEMU. */
  guestGone: 2,
} as const;

/** One message. */
export type ReturnPathMessage =
  /** The destination is done (SHUT_STATUS). Nothing follows. */
  | { kind: "shut"; status: number }
  | { kind: "pong"; value: number }
  /** Wants bytes [start, start + length); without `block`, of the block of the last request. */
  | { kind: "pageRequest"; block: string | undefined; start: number; length: number }
  /** `readReceivedBitmap` must read the bitmap behind it, which the length does not count. */
  | { kind: "receivedBitmap"; block: string }
  | { kind: "resumeAck" }
  | { kind: "switchoverAck" };

/** A message as `decodeReturnPath` leaves it: filled anew each time, fields it lacks are 0. */
export interface ReturnPathRecord {
  /** One of RETURN_PATH. */
  type: number;
  /** Status of SHUT, value of PONG. */
  value: number;
  /** Of a page request, in bytes. */
  start: number;
  length: number;
  /** Where the block's name lies in the bytes decoded; nameLength 0 means the previous block. */
  nameAt: number;
  nameLength: number;
}

interface Shape {
  name: string;
  /** Bytes before the name, if any. */
  fixed: number;
  named: boolean;
}

const HEADER_BYTES = 4;
const REQUEST_BYTES = 12;
const TWO_16 = 0x1_0000;
const TWO_32 = 0x1_0000_0000;

/** The longest page request: header, fields, length of the name, name. */
export const PAGE_REQUEST_BYTES_MAX = HEADER_BYTES + REQUEST_BYTES + 1 + NAME_BYTES_MAX;

const SHAPES: readonly (Shape | undefined)[] = shapesByType([
  [RETURN_PATH.shut, { name: "SHUT", fixed: 4, named: false }],
  [RETURN_PATH.pong, { name: "PONG", fixed: 4, named: false }],
  [RETURN_PATH.requestPagesId, { name: "REQ_PAGES_ID", fixed: REQUEST_BYTES, named: true }],
  [RETURN_PATH.requestPages, { name: "REQ_PAGES", fixed: REQUEST_BYTES, named: false }],
  [RETURN_PATH.receivedBitmap, { name: "RECV_BITMAP", fixed: 0, named: true }],
  [RETURN_PATH.resumeAck, { name: "RESUME_ACK", fixed: 4, named: false }],
  [RETURN_PATH.switchoverAck, { name: "SWITCHOVER_ACK", fixed: 0, named: false }],
]);

function shapesByType(entries: readonly [type: number, shape: Shape][]): (Shape | undefined)[] {
  const shapes: (Shape | undefined)[] = [];
  for (const [type, shape] of entries) shapes[type] = shape;
  return shapes;
}

/** QEMU's name of a message type, for messages to people. */
export function returnPathName(type: number): string {
  return SHAPES[type]?.name ?? `message ${type}`;
}

/** An empty record for `decodeReturnPath` to fill. */
export function createReturnPathRecord(): ReturnPathRecord {
  return { type: 0, value: 0, start: 0, length: 0, nameAt: 0, nameLength: 0 };
}

/**
 * Decodes the message at `pos` into `out` and returns its bytes, or 0 if [pos, end) does not hold
 * all of it yet (`out` is then undefined). `base` is the stream offset of bytes[0], for errors.
 */
export function decodeReturnPath(
  bytes: Uint8Array,
  view: DataView,
  pos: number,
  end: number,
  out: ReturnPathRecord,
  base = 0,
): number {
  if (end - pos < HEADER_BYTES) return 0;
  const type = view.getUint16(pos);
  const length = view.getUint16(pos + 2);
  const shape = checkHeader(type, length, base + pos);
  if (end - pos < HEADER_BYTES + length) return 0;
  const body = pos + HEADER_BYTES;
  out.type = type;
  out.value = 0;
  out.start = 0;
  out.length = 0;
  out.nameAt = 0;
  out.nameLength = 0;
  if (shape.fixed === REQUEST_BYTES) decodeRequest(view, body, out, base);
  else if (shape.fixed === 4) out.value = view.getUint32(body);
  if (shape.named) {
    out.nameAt = body + shape.fixed + 1;
    out.nameLength = bytes[out.nameAt - 1] ?? 0;
    if (out.nameLength !== length - shape.fixed - 1) {
      const problem = `${length} bytes and a name of ${out.nameLength}`;
      refuse("BAD_LENGTH", `The message ${shape.name} has ${problem}`, base + pos);
    }
  }
  if (type === RETURN_PATH.resumeAck && out.value !== RESUME_ACK_VALUE) {
    refuse("BAD_VALUE", `RESUME_ACK has the value ${out.value}, not 1`, base + pos);
  }
  return HEADER_BYTES + length;
}

function checkHeader(type: number, length: number, offset: number): Shape {
  const shape = SHAPES[type];
  if (shape === undefined && offset === 0) {
    const what = describeForeign(type * TWO_16 + length);
    refuse("UNKNOWN_MESSAGE", `The destination answered with ${what}`, offset);
  }
  if (shape === undefined) {
    refuse("UNKNOWN_MESSAGE", `The return path has an unknown message, type ${type}`, offset);
  }
  if (length > RETURN_PATH_BYTES_MAX) {
    const limit = `above the limit of ${RETURN_PATH_BYTES_MAX}`;
    refuse("BAD_LENGTH", `The message ${shape.name} has ${length} bytes, ${limit}`, offset);
  }
  // A name has a byte of length and at least one character.
  if (shape.named ? length < shape.fixed + 2 : length !== shape.fixed) {
    refuse("BAD_LENGTH", `The message ${shape.name} has ${length} bytes`, offset);
  }
  return shape;
}

function decodeRequest(view: DataView, at: number, out: ReturnPathRecord, base: number): void {
  out.start = view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
  out.length = view.getUint32(at + 8);
  if (out.length === 0 || !Number.isSafeInteger(out.start + out.length)) {
    const range = `${out.length} bytes at ${out.start}`;
    refuse("BAD_VALUE", `A page request asks for ${range}, which no block has`, base + at);
  }
}

/** Reads one message; blocks in the reader's refill until it is whole. */
export function readReturnPathMessage(reader: StreamReader): ReturnPathMessage {
  const record = createReturnPathRecord();
  for (;;) {
    const { bytes, view, pos, end, base } = reader;
    const taken = decodeReturnPath(bytes, view, pos, end, record, base);
    if (taken > 0) {
      reader.pos += taken;
      return messageOf(bytes, record);
    }
    // The length is known once four bytes are there.
    const whole = end - pos < HEADER_BYTES ? 0 : view.getUint16(pos + 2);
    reader.ensure(HEADER_BYTES + whole);
  }
}

function messageOf(bytes: Uint8Array, record: ReturnPathRecord): ReturnPathMessage {
  const { type, value, start, length, nameAt, nameLength } = record;
  switch (type) {
    case RETURN_PATH.shut:
      return { kind: "shut", status: value };
    case RETURN_PATH.pong:
      return { kind: "pong", value };
    case RETURN_PATH.requestPagesId:
      return { kind: "pageRequest", block: byteString(bytes, nameAt, nameLength), start, length };
    case RETURN_PATH.requestPages:
      return { kind: "pageRequest", block: undefined, start, length };
    case RETURN_PATH.receivedBitmap:
      return { kind: "receivedBitmap", block: byteString(bytes, nameAt, nameLength) };
    case RETURN_PATH.resumeAck:
      return { kind: "resumeAck" };
    case RETURN_PATH.switchoverAck:
      return { kind: "switchoverAck" };
    default:
      throw new Error(`message ${type} has a shape and no decoder`);
  }
}

/** Writes one message. Behind "receivedBitmap" the bitmap itself must follow. */
export function writeReturnPathMessage(writer: StreamWriter, message: ReturnPathMessage): void {
  switch (message.kind) {
    case "shut":
      writer.u16(RETURN_PATH.shut).u16(4).u32(message.status);
      break;
    case "pong":
      writer.u16(RETURN_PATH.pong).u16(4).u32(message.value);
      break;
    case "pageRequest": {
      const bytes = new Uint8Array(new ArrayBuffer(PAGE_REQUEST_BYTES_MAX));
      const view = new DataView(bytes.buffer);
      const { block, start, length } = message;
      writer.raw(bytes.subarray(0, putPageRequest(bytes, view, 0, block, start, length)));
      break;
    }
    case "receivedBitmap":
      checkName(message.block);
      writer
        .u16(RETURN_PATH.receivedBitmap)
        .u16(1 + message.block.length)
        .str8(message.block);
      break;
    case "resumeAck":
      writer.u16(RETURN_PATH.resumeAck).u16(4).u32(RESUME_ACK_VALUE);
      break;
    case "switchoverAck":
      writer.u16(RETURN_PATH.switchoverAck).u16(0);
      break;
  }
}

function checkName(block: string): void {
  if (block.length === 0 || block.length > NAME_BYTES_MAX) {
    throw new RangeError(`a RAM block name of ${block.length} bytes`);
  }
}

/**
 * Writes a request for bytes [start, start + length) at `at` and returns its length, at most
 * PAGE_REQUEST_BYTES_MAX. `block` undefined means the block of the previous request of this
 * connection. A QEMU source wants both numbers to be multiples of the block's page size, and the
 * first request after every (re)connection to name its block.
 */
export function putPageRequest(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  block: string | undefined,
  start: number,
  length: number,
): number {
  const nameBytes = block === undefined ? 0 : 1 + block.length;
  view.setUint16(at, block === undefined ? RETURN_PATH.requestPages : RETURN_PATH.requestPagesId);
  view.setUint16(at + 2, REQUEST_BYTES + nameBytes);
  putU64(view, at + 4, start);
  view.setUint32(at + 12, length);
  if (block !== undefined) {
    checkName(block);
    putStr8(bytes, at + HEADER_BYTES + REQUEST_BYTES, block);
  }
  return HEADER_BYTES + REQUEST_BYTES + nameBytes;
}
