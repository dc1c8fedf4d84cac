/** RAM blocks: the named pieces that guest memory consists of, as in QEMU's RAMBlock. */
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";

/** One RAM block. Plain data: it crosses to workers by message. */
export interface RamBlock {
  /** Place in the list of blocks, from 0. */
  index: number;
  /** Name on the wire (idstr): "pc.ram". */
  name: string;
  /** Bytes in use: a multiple of `pageSize` (of the target page for odd-sized file blocks). */
  length: number;
  /** Host page size in bytes: what is placed, requested and discarded as one. */
  pageSize: number;
  /** Where the block is mapped in this process; 0 where it is not mapped at all. */
  address: number;
}

/** Target pages of a block. */
export function targetPages(block: RamBlock): number {
  return Math.ceil(block.length / TARGET_PAGE_SIZE);
}

/** Target pages in one host page of a block. */
export function targetPagesPerHostPage(block: RamBlock): number {
  return block.pageSize / TARGET_PAGE_SIZE;
}

/** The page sizes of all blocks, ORed together: the first word of ADVISE. */
export function pageSizeSummary(blocks: readonly RamBlock[]): number {
  return blocks.reduce((summary, block) => summary | block.pageSize, 0);
}

/** Bytes of all blocks. */
export function totalBytes(blocks: readonly RamBlock[]): number {
  return blocks.reduce((sum, block) => sum + block.length, 0);
}

/** Target pages of all blocks. */
export function totalPages(blocks: readonly RamBlock[]): number {
  return blocks.reduce((sum, block) => sum + targetPages(block), 0);
}

/** The block that a target page, counted over all blocks, is in. @throws RangeError for none. */
export function blockOfPage(blocks: readonly RamBlock[], page: number): RamBlock {
  let end = 0;
  for (const block of blocks) {
    end += targetPages(block);
    if (page < end) return block;
  }
  throw new RangeError(`the guest has no page ${page}`);
}

/** Target pages of the blocks before this one. */
export function pagesBefore(blocks: readonly RamBlock[], block: RamBlock): number {
  let before = 0;
  for (const other of blocks) {
    if (other.index === block.index) break;
    before += targetPages(other);
  }
  return before;
}

/** The host page of its block that holds a target page, counted over all blocks. */
export function hostPageOf(blocks: readonly RamBlock[], block: RamBlock, page: number): number {
  return Math.floor((page - pagesBefore(blocks, block)) / targetPagesPerHostPage(block));
}

/** The block of a name, or undefined. */
export function blockNamed(blocks: readonly RamBlock[], name: string): RamBlock | undefined {
  return blocks.find((block) => block.name === name);
}

/** The block whose name is in bytes [at, at + length), one a character, or undefined. Allocates nothing. */
export function blockNamedIn(
  blocks: readonly RamBlock[],
  bytes: Uint8Array,
  at: number,
  length: number,
): RamBlock | undefined {
  for (const block of blocks) if (isText(block.name, bytes, at, length)) return block;
  return undefined;
}

function isText(text: string, bytes: Uint8Array, at: number, length: number): boolean {
  if (text.length !== length) return false;
  for (let i = 0; i < length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false;
  return true;
}
