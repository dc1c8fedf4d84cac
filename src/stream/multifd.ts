/**
 * What a multifd channel carries (QEMU's migration/multifd.c): a hello, then packets of up to 128
 * pages of one RAM block, each a header of fixed length and the data of its pages.
 *
 *     hello   u32 magic, u32 version, 16 bytes UUID, u8 channel, 39 bytes of zeros
 *     header  u32 magic, u32 version, u32 flags, u32 pages allocated, u32 normal pages,
 *             u32 data bytes, u64 packet number, u32 zero pages, 28 bytes reserved,
 *             256 bytes RAM block, 128 × u64 offset: those of normal pages, then of zero pages
 *
 * Packets are numbered over all channels of a migration, from 0 and without a gap. That is so since
 * QEMU 9.0; before, numbers repeat and jump, and a packet with SYNC may carry pages.
 */
import {
  MULTIFD_DATA_BYTES_MAX,
  MULTIFD_FLAG,
  MULTIFD_MAGIC,
  MULTIFD_PAGES,
  MULTIFD_VERSION,
  TARGET_PAGE_SIZE,
} from "./constants.ts";
import { byteString } from "./reader.ts";
import { hex, refuse } from "./refuse.ts";

/** How the pages of a packet are compressed. */
export type MultifdCompression = "none" | "zlib" | "zstd";

/** A packet's header. Reused from packet to packet. */
export interface MultifdPacket {
  /** Everything that the source sent before a flush has been sent on this channel. */
  sync: boolean;
  compression: MultifdCompression;
  /** Name of the RAM block; "" in a packet without pages. */
  block: string;
  /** Pages with data, and pages of zeros. */
  normal: number;
  zero: number;
  /** Bytes of data behind the header. */
  dataLength: number;
  /** Number of the packet among those of all channels. */
  number: number;
}

export function createMultifdPacket(): MultifdPacket {
  return {
    ...{ sync: false, compression: "none", block: "", normal: 0, zero: 0 },
    ...{ dataLength: 0, number: 0 },
  };
}

const BLOCK_AT = 64;
const BLOCK_BYTES = 256;
const OFFSETS_AT = BLOCK_AT + BLOCK_BYTES;
const CHANNEL_AT = 24;
const TWO_32 = 0x1_0000_0000;
const OLD_HINT = "at the QEMU: migrate_set_capability multifd off, then migrate again";

/** Reads the hello at `at`; gives the number of the channel. `base` is the offset of view's start. */
export function readMultifdHello(view: DataView, at: number, base = 0): number {
  checkHead(view, at, base);
  return view.getUint8(at + CHANNEL_AT);
}

/** Reads the header at `at` into `packet`. All of it must be there. */
export function readMultifdHeader(
  view: DataView,
  at: number,
  packet: MultifdPacket,
  base = 0,
): void {
  checkHead(view, at, base);
  const flags = view.getUint32(at + 8);
  packet.sync = (flags & MULTIFD_FLAG.sync) !== 0;
  packet.normal = view.getUint32(at + 16);
  packet.number = view.getUint32(at + 24) * TWO_32 + view.getUint32(at + 28);
  packet.zero = view.getUint32(at + 32);
  packet.compression = compressionOf(flags, base + at);
  const pages = packet.normal + packet.zero;
  if (packet.sync && (view.getUint32(at + 12) !== 0 || pages > 0)) {
    const what = "The source sends pages on multifd channels in the way of QEMU before 9.0";
    refuse("UNSUPPORTED", what, base + at, OLD_HINT);
  }
  if (pages > MULTIFD_PAGES) {
    refuse("BAD_LENGTH", `A multifd packet has ${pages} pages`, base + at);
  }
  // Without pages the length is that of an earlier packet.
  packet.dataLength = packet.normal === 0 ? 0 : view.getUint32(at + 20);
  checkLength(packet, base + at);
  packet.block = pages === 0 ? "" : readName(view, at + BLOCK_AT);
}

/** Offset in the RAM block of page `index` of a packet: normal pages first, then pages of zeros. */
export function multifdOffset(view: DataView, at: number, index: number): number {
  const offsetAt = at + OFFSETS_AT + index * 8;
  return view.getUint32(offsetAt) * TWO_32 + view.getUint32(offsetAt + 4);
}

function checkHead(view: DataView, at: number, base: number): void {
  const magic = view.getUint32(at);
  if (magic !== MULTIFD_MAGIC) {
    refuse("BAD_MAGIC", `A multifd packet begins with ${hex(magic)}`, base + at);
  }
  const version = view.getUint32(at + 4);
  if (version !== MULTIFD_VERSION) {
    refuse("BAD_VERSION", `A multifd packet has version ${version}, not 1`, base + at);
  }
}

function compressionOf(flags: number, offset: number): MultifdCompression {
  const known = MULTIFD_FLAG.sync | MULTIFD_FLAG.compression;
  if ((flags & MULTIFD_FLAG.deviceState) !== 0) {
    refuse("UNSUPPORTED", "The source sends device state on multifd channels", offset);
  }
  if ((flags & ~known) !== 0) {
    refuse("BAD_FLAGS", `A multifd packet has flags ${hex(flags)}`, offset);
  }
  switch (flags & MULTIFD_FLAG.compression) {
    case 0:
      return "none";
    case MULTIFD_FLAG.zlib:
      return "zlib";
    case MULTIFD_FLAG.zstd:
      return "zstd";
    default: {
      const what = `The source compresses pages in a way that is not known here (${hex(flags)})`;
      const hint = "at the QEMU: migrate_set_parameter multifd-compression zstd";
      refuse("UNSUPPORTED", what, offset, hint);
    }
  }
}

function checkLength({ compression, normal, dataLength }: MultifdPacket, offset: number): void {
  const raw = normal * TARGET_PAGE_SIZE;
  const right = compression === "none" ? dataLength === raw : dataLength > 0 || normal === 0;
  if (right && dataLength <= MULTIFD_DATA_BYTES_MAX) return;
  const what = `${normal} pages (compression: ${compression}) and ${dataLength} bytes of data`;
  refuse("BAD_LENGTH", `A multifd packet has ${what}`, offset);
}

/** The name of a RAM block: up to the first NUL; without one it is longer than any can be. */
function readName(view: DataView, at: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, BLOCK_BYTES);
  const end = bytes.indexOf(0);
  return byteString(bytes, 0, end < 0 ? BLOCK_BYTES : end);
}
