/**
 * The layout of RAM in a stream with the capability `mapped-ram` (QEMU 9.0, files only): every page
 * has a fixed place in the file. In the MEM_SIZE list each block is followed by a header, a bitmap
 * of the pages that are there, and, aligned to 1 MiB, room for all of them; the next block comes
 * behind that room. Pages whose bit is clear are zero.
 */
import {
  MAPPED_RAM_HEADER_BYTES,
  MAPPED_RAM_PAGES_ALIGNMENT,
  MAPPED_RAM_VERSION,
} from "./constants.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import type { StreamWriter } from "./writer.ts";

/** Where the parts of one block lie; offsets count from the start of the file. */
export interface MappedRamLayout {
  /** Of one target page, in bytes. */
  pageSize: number;
  bitmapOffset: number;
  /** Whole u64 words, in the byte order of the source's host: little-endian on x86 and Arm. */
  bitmapBytes: number;
  /** Page i of the block lies at pagesOffset + i * pageSize. */
  pagesOffset: number;
  /** One past the room for pages: where the next block's entry begins. */
  end: number;
}

/** Where the parts of a block of `usedLength` bytes lie whose header stands at `headerAt`. */
export function mappedRamLayout(
  headerAt: number,
  usedLength: number,
  pageSize: number,
): MappedRamLayout {
  const bitmapOffset = headerAt + MAPPED_RAM_HEADER_BYTES;
  const bitmapBytes = Math.ceil(usedLength / pageSize / 64) * 8;
  const unit = MAPPED_RAM_PAGES_ALIGNMENT;
  const pagesOffset = Math.ceil((bitmapOffset + bitmapBytes) / unit) * unit;
  return { pageSize, bitmapOffset, bitmapBytes, pagesOffset, end: pagesOffset + usedLength };
}

/**
 * Reads the header of a block of `usedLength` bytes. Offsets that differ from QEMU's are accepted
 * where the parts neither overlap nor come before the header.
 */
export function readMappedRamHeader(
  reader: StreamReader,
  usedLength: number,
  targetPageSize: number,
): MappedRamLayout {
  const at = reader.offset;
  const version = reader.u32();
  if (version !== MAPPED_RAM_VERSION) {
    refuse("BAD_VERSION", `A mapped-ram header has version ${version}, not 1`, at);
  }
  const pageSize = reader.u64("page size of a mapped-ram header");
  if (pageSize !== targetPageSize) {
    const problem = `has pages of ${pageSize} bytes, not ${targetPageSize}`;
    refuse("BAD_VALUE", `A mapped-ram header ${problem}`, at);
  }
  const bitmapOffset = reader.u64("bitmap offset of a mapped-ram header");
  const pagesOffset = reader.u64("pages offset of a mapped-ram header");
  const { bitmapBytes } = mappedRamLayout(at, usedLength, pageSize);
  const end = pagesOffset + usedLength;
  const inOrder = bitmapOffset >= reader.offset && bitmapOffset + bitmapBytes <= pagesOffset;
  if (!inOrder || !Number.isSafeInteger(end)) {
    const parts = `the bitmap at ${bitmapOffset} and pages at ${pagesOffset}`;
    refuse("BAD_VALUE", `A mapped-ram header has ${parts}, which cannot be`, at);
  }
  return { pageSize, bitmapOffset, bitmapBytes, pagesOffset, end };
}

/** Writes the header that says where the parts of a block lie. */
export function writeMappedRamHeader(writer: StreamWriter, layout: MappedRamLayout): void {
  writer.u32(MAPPED_RAM_VERSION).u64(layout.pageSize);
  writer.u64(layout.bitmapOffset).u64(layout.pagesOffset);
}
