/**
 * The MEM_SIZE record: the list of RAM blocks at the start of the RAM section (QEMU's
 * `ram_save_setup` and `parse_ramblocks`). Its u64 carries the sum of the blocks' lengths, and the
 * list goes on until that sum is used up.
 *
 * What a block carries beside name and length is not said in the stream. QEMU's two sides know it
 * from their configuration; a receiver without blocks of its own has to look: see `hasPageSize`.
 */
import {
  HOST_PAGE_SIZE_MAX,
  RAM_BLOCKS_MAX,
  RAM_BYTES_MAX,
  RAM_FLAG,
  TARGET_PAGE_SIZE,
} from "./constants.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";
import type { StreamWriter } from "./writer.ts";

/** One block of guest memory. */
export interface RamSetupBlock {
  /** "pc.ram", "/rom@etc/acpi/tables". */
  name: string;
  /** Bytes in use (`used_length`): a positive multiple of the target page size. */
  length: number;
  /** Bytes of a host page of this block; above the base page size only on hugetlbfs. */
  pageSize: number;
  /** Where the guest sees it, 0 where it does not; only with the capability `x-ignore-shared`. */
  guestPhysicalAddress?: number;
}

/** What both sides must know of each other's configuration. */
export interface RamSetupOptions {
  targetPageSize?: number;
  /** The greater of the host's page size and the target's: what blocks have that say nothing. */
  basePageSize?: number;
  /** The summary of POSTCOPY_ADVISE: the OR of all page sizes. Undefined if there was no ADVISE. */
  pageSizeSummary?: number | undefined;
  /** The capability `x-ignore-shared` is on: each block carries its guest physical address. */
  guestPhysicalAddresses?: boolean;
  /**
   * Called after the fields of each block, when the reader stands behind them: where a stream with
   * `mapped-ram` has its header, and pages to step over.
   */
  afterBlock?: (block: RamSetupBlock) => void;
}

const TWO_32 = 0x1_0000_0000;

/**
 * Reads the list behind a MEM_SIZE record whose u64 gave `total` bytes. Needs the 8 bytes (16 with
 * guest physical addresses) that follow in every stream, as a record must end the section.
 */
export function decodeRamSetup(
  reader: StreamReader,
  total: number,
  options: RamSetupOptions = {},
): RamSetupBlock[] {
  if (total > RAM_BYTES_MAX) {
    refuse("BAD_LENGTH", `The guest's memory has ${total} bytes`, reader.offset);
  }
  const blocks: RamSetupBlock[] = [];
  const names = new Set<string>();
  for (let rest = total; rest > 0;) {
    const at = reader.offset;
    const block = readBlock(reader, rest, options);
    if (names.has(block.name)) {
      refuse("BAD_VALUE", `The RAM block "${block.name}" is listed twice`, at);
    }
    if (blocks.length === RAM_BLOCKS_MAX) {
      refuse("BAD_LENGTH", `The guest has more than ${RAM_BLOCKS_MAX} RAM blocks`, at);
    }
    names.add(block.name);
    blocks.push(block);
    options.afterBlock?.(block);
    rest -= block.length;
  }
  return blocks;
}

function readBlock(reader: StreamReader, rest: number, options: RamSetupOptions): RamSetupBlock {
  const { targetPageSize = TARGET_PAGE_SIZE, basePageSize = targetPageSize } = options;
  const at = reader.offset;
  const name = reader.str8();
  if (name === "") refuse("BAD_LENGTH", "A RAM block has an empty name", at);
  const length = reader.u64(`length of RAM block "${name}"`);
  if (length === 0 || length % targetPageSize !== 0) {
    const problem = `no positive multiple of the page size ${targetPageSize}`;
    refuse("BAD_LENGTH", `The RAM block "${name}" has ${length} bytes, ${problem}`, at);
  }
  if (length > rest) {
    const problem = `and only ${rest} bytes are left of the total`;
    refuse("BAD_LENGTH", `The RAM block "${name}" has ${length} bytes, ${problem}`, at);
  }
  const block: RamSetupBlock = { name, length, pageSize: basePageSize };
  if (hasPageSize(reader, basePageSize, options)) {
    block.pageSize = reader.u64(`page size of RAM block "${name}"`);
  }
  if (options.guestPhysicalAddresses === true) {
    block.guestPhysicalAddress = reader.u64(`address of RAM block "${name}"`);
  }
  return block;
}

/**
 * Whether the next 8 bytes are the page size of the block that was just read. Only blocks whose
 * pages are larger than the base page size carry one, and only after ADVISE. Anything else that can
 * stand there looks different: a name begins with a length that is not 0, so the upper half of the
 * u64 is not 0; a record has a flag among the bits below a page. Only a guest physical address can
 * look like a page size (Arm's memory begins at 1 GiB), and then what follows decides.
 */
function hasPageSize(
  reader: StreamReader,
  basePageSize: number,
  options: RamSetupOptions,
): boolean {
  const { pageSizeSummary, guestPhysicalAddresses = false } = options;
  if (pageSizeSummary === undefined) return false;
  // Shared blocks that are skipped do not count in the summary, but carry their page size.
  if (pageSizeSummary < 2 * basePageSize && !guestPhysicalAddresses) return false;
  reader.ensure(8);
  const { view, pos } = reader;
  const size = view.getUint32(pos) * TWO_32 + view.getUint32(pos + 4);
  if (size <= basePageSize || size > HOST_PAGE_SIZE_MAX) return false;
  if (!Number.isInteger(Math.log2(size))) return false;
  return !guestPhysicalAddresses || addressFollows(reader, options);
}

/** Whether the 8 bytes after the next 8 are an address, and not the next block or record. */
function addressFollows(reader: StreamReader, options: RamSetupOptions): boolean {
  const { targetPageSize = TARGET_PAGE_SIZE } = options;
  reader.ensure(16);
  const { view, pos } = reader;
  const isName = view.getUint8(pos + 8) !== 0;
  const isRecord = view.getUint32(pos + 12) % targetPageSize !== 0;
  return !isName && !isRecord;
}

/** Writes a MEM_SIZE record and its list. Blocks that cannot be are a programmer's error. */
export function encodeRamSetup(
  writer: StreamWriter,
  blocks: readonly RamSetupBlock[],
  options: RamSetupOptions = {},
): void {
  const { targetPageSize = TARGET_PAGE_SIZE, basePageSize = targetPageSize } = options;
  const total = blocks.reduce((sum, block) => sum + block.length, 0);
  if (blocks.length > RAM_BLOCKS_MAX || total > RAM_BYTES_MAX) {
    throw new RangeError(`${blocks.length} RAM blocks of ${total} bytes`);
  }
  writer.u64(total + RAM_FLAG.memSize);
  for (const block of blocks) {
    if (block.name === "" || block.length === 0 || block.length % targetPageSize !== 0) {
      throw new RangeError(`RAM block "${block.name}" of ${block.length} bytes`);
    }
    writer.str8(block.name).u64(block.length);
    if (options.pageSizeSummary !== undefined && block.pageSize !== basePageSize) {
      writer.u64(block.pageSize);
    }
    if (options.guestPhysicalAddresses === true) {
      writer.u64(block.guestPhysicalAddress ?? 0);
    }
    options.afterBlock?.(block);
  }
}
