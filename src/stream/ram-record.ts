/**
 * RAM records: what the body of a RAM section, and a preempt channel, consist of (QEMU's
 * `ram_load_precopy`, `ram_load_postcopy`). Each begins with a u64 whose bits below the target page
 * size are flags and whose other bits are the offset in the RAM block; then, unless CONTINUE says
 * "the same block as before on this channel", the block's name; then what the flag calls for.
 *
 * This is the hottest code of the format: no allocation, no BigInt, and a short way for a whole
 * page of the same block, which is nearly every record.
 */
import { NAME_BYTES_MAX, RAM_FLAG, TARGET_PAGE_SIZE } from "./constants.ts";
import { putStr8, putU64 } from "./put.ts";
import type { StreamReader } from "./reader.ts";
import { refuseFlags, refuseOffset, refuseStray } from "./ram-flags.ts";
import { refuse } from "./refuse.ts";
import { XBZRLE_ENCODING } from "./xbzrle.ts";

/** A record as the decoder leaves it. One object serves a whole channel; it is filled anew. */
export interface RamRecord {
  /** Bits of RAM_FLAG. */
  flags: number;
  /** Offset in the block, in bytes. For MEM_SIZE: the total of all blocks. */
  offset: number;
  /** Where the block's name lies in the bytes decoded; nameLength 0 means the previous block. */
  nameAt: number;
  nameLength: number;
  /** Where the page, or its encoded form, lies: the record ends at dataAt + dataLength. */
  dataAt: number;
  dataLength: number;
  /** The byte that a ZERO page is filled with; QEMU 9 and later refuse any but 0. */
  fill: number;
}

const TWO_32 = 0x1_0000_0000;
/** The upper half of 2^53 - 1. */
const SAFE_HIGH_MAX = 0x1f_ffff;
const WORD_BYTES = 8;
const PAGE_CONTINUE = RAM_FLAG.page | RAM_FLAG.continue;
const XBZRLE_HEADER_BYTES = 3;
const COMPRESS_HEADER_BYTES = 4;

/** Longest header of a record whose data is a plain page: the u64 and a name. */
export const RAM_HEADER_BYTES_MAX = WORD_BYTES + 1 + NAME_BYTES_MAX;

/** Longest record: a buffer that is decoded from must hold at least this. */
export function ramRecordBytesMax(targetPageSize: number): number {
  return RAM_HEADER_BYTES_MAX + COMPRESS_HEADER_BYTES + compressBound(targetPageSize);
}

/** What zlib needs at most for `length` bytes (compressBound of zlib.h). */
export function compressBound(length: number): number {
  return length + (length >>> 12) + (length >>> 14) + (length >>> 25) + 13;
}

/** An empty record for the decoder to fill. */
export function createRamRecord(): RamRecord {
  return { flags: 0, offset: 0, nameAt: 0, nameLength: 0, dataAt: 0, dataLength: 0, fill: 0 };
}

/**
 * Decodes the record at `pos` into `out` and returns its bytes, page data included, or 0 if
 * [pos, end) does not hold all of it yet: refill and call again. `out` means nothing after a 0.
 * Of MEM_SIZE only the u64 is taken; `decodeRamSetup` reads what follows. `base` is the stream
 * offset of bytes[0], for errors.
 */
export function decodeRamRecord(
  bytes: Uint8Array,
  view: DataView,
  pos: number,
  end: number,
  out: RamRecord,
  targetPageSize: number = TARGET_PAGE_SIZE,
  base = 0,
): number {
  const header = decodeRamHeader(bytes, view, pos, end, out, targetPageSize, base);
  if (header === 0) return 0;
  const whole = header + out.dataLength;
  return whole <= end - pos ? whole : 0;
}

/**
 * Decodes as `decodeRamRecord` does, but the page data need not be there: returns the bytes before
 * it, and whoever reads straight into guest memory finds in `out.dataLength` how much comes.
 */
export function decodeRamHeader(
  bytes: Uint8Array,
  view: DataView,
  pos: number,
  end: number,
  out: RamRecord,
  targetPageSize: number,
  base: number,
): number {
  if (end - pos < WORD_BYTES) return 0;
  const high = view.getUint32(pos);
  const low = view.getUint32(pos + 4);
  const flags = low & (targetPageSize - 1);
  if (high > SAFE_HIGH_MAX) refuseOffset(high, low, flags, base + pos);
  out.flags = flags;
  out.offset = high * TWO_32 + (low - flags);
  out.nameAt = 0;
  out.nameLength = 0;
  out.dataAt = pos + WORD_BYTES;
  out.dataLength = 0;
  out.fill = 0;
  if (flags === PAGE_CONTINUE) {
    out.dataLength = targetPageSize;
    return WORD_BYTES;
  }
  return decodeOther(bytes, view, pos, end, out, targetPageSize, base);
}

/** Every record but PAGE|CONTINUE. Returns the bytes of its header, or 0. */
function decodeOther(
  bytes: Uint8Array,
  view: DataView,
  pos: number,
  end: number,
  out: RamRecord,
  targetPageSize: number,
  base: number,
): number {
  switch (out.flags & ~RAM_FLAG.continue) {
    case RAM_FLAG.endOfSection:
    case RAM_FLAG.multifdFlush:
      if (out.offset !== 0) refuseStray(out.flags, out.offset, base + pos);
      return refuseContinue(out, base + pos);
    case RAM_FLAG.memSize:
      return refuseContinue(out, base + pos);
    case RAM_FLAG.page: {
      const at = decodeName(bytes, pos, end, out, base);
      out.dataAt = at;
      out.dataLength = targetPageSize;
      return at === 0 ? 0 : at - pos;
    }
    case RAM_FLAG.zero: {
      const at = decodeName(bytes, pos, end, out, base);
      if (at === 0 || end - at < 1) return 0;
      out.fill = bytes[at] ?? 0;
      out.dataAt = at + 1;
      return at + 1 - pos;
    }
    case RAM_FLAG.xbzrle: {
      const at = decodeName(bytes, pos, end, out, base);
      return at === 0 ? 0 : decodeXbzrleHeader(view, pos, at, end, out, targetPageSize, base);
    }
    case RAM_FLAG.compressPage: {
      const at = decodeName(bytes, pos, end, out, base);
      return at === 0 ? 0 : decodeCompressHeader(view, pos, at, end, out, targetPageSize, base);
    }
    default:
      return refuseFlags(out.flags, base + pos);
  }
}

/** Decodes the name unless CONTINUE says there is none; returns where it ends, or 0. */
function decodeName(
  bytes: Uint8Array,
  pos: number,
  end: number,
  out: RamRecord,
  base: number,
): number {
  const at = pos + WORD_BYTES;
  if ((out.flags & RAM_FLAG.continue) !== 0) return at;
  if (end - at < 1) return 0;
  const length = bytes[at] ?? 0;
  if (length === 0) {
    refuse("BAD_LENGTH", "A page record has an empty name for its RAM block", base + at);
  }
  out.nameAt = at + 1;
  out.nameLength = length;
  return end - out.nameAt < length ? 0 : out.nameAt + length;
}

function decodeXbzrleHeader(
  view: DataView,
  pos: number,
  at: number,
  end: number,
  out: RamRecord,
  targetPageSize: number,
  base: number,
): number {
  if (end - at < XBZRLE_HEADER_BYTES) return 0;
  const encoding = view.getUint8(at);
  if (encoding !== XBZRLE_ENCODING) {
    refuse("BAD_VALUE", `An XBZRLE page has the unknown encoding ${encoding}`, base + at);
  }
  const length = view.getUint16(at + 1);
  if (length > targetPageSize) {
    refuse("BAD_LENGTH", `An XBZRLE page has ${length} bytes, more than a page`, base + at);
  }
  out.dataAt = at + XBZRLE_HEADER_BYTES;
  out.dataLength = length;
  return out.dataAt - pos;
}

function decodeCompressHeader(
  view: DataView,
  pos: number,
  at: number,
  end: number,
  out: RamRecord,
  targetPageSize: number,
  base: number,
): number {
  if (end - at < COMPRESS_HEADER_BYTES) return 0;
  const length = view.getUint32(at);
  if (length === 0 || length > compressBound(targetPageSize)) {
    refuse("BAD_LENGTH", `A compressed page has ${length} bytes`, base + at);
  }
  out.dataAt = at + COMPRESS_HEADER_BYTES;
  out.dataLength = length;
  return out.dataAt - pos;
}

/** Records without a block: CONTINUE makes no sense with them. Returns the bytes of their header. */
function refuseContinue(out: RamRecord, offset: number): number {
  if ((out.flags & RAM_FLAG.continue) !== 0) refuseFlags(out.flags, offset);
  return WORD_BYTES;
}

/**
 * Reads the next record through the reader's refill. Name and data lie in `reader.bytes` and stay
 * there until the reader is used again. The buffer must hold `ramRecordBytesMax`.
 */
export function readRamRecord(
  reader: StreamReader,
  out: RamRecord,
  targetPageSize: number = TARGET_PAGE_SIZE,
): void {
  for (;;) {
    const { bytes, view, pos, end, base } = reader;
    const header = decodeRamHeader(bytes, view, pos, end, out, targetPageSize, base);
    const whole = header + out.dataLength;
    if (header > 0 && whole <= end - pos) {
      reader.pos += whole;
      return;
    }
    reader.ensure(header > 0 ? whole : end - pos + 1);
  }
}

/** Writes the u64 of a record: the offset (a multiple of the target page size) and the flags. */
export function putRamHeader(view: DataView, at: number, offset: number, flags: number): void {
  putU64(view, at, offset + flags);
}

/**
 * Writes the u64 of a record without CONTINUE and its block's name; returns the bytes written, at
 * most RAM_HEADER_BYTES_MAX.
 */
export function putNamedRamHeader(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  offset: number,
  flags: number,
  block: string,
): number {
  putRamHeader(view, at, offset, flags);
  return WORD_BYTES + putStr8(bytes, at + WORD_BYTES, block);
}

/** Writes what stands between the header of an XBZRLE record and its `length` bytes; returns 3. */
export function putXbzrleHeader(view: DataView, at: number, length: number): number {
  view.setUint8(at, XBZRLE_ENCODING);
  view.setUint16(at + 1, length);
  return XBZRLE_HEADER_BYTES;
}
