/** What a virtual machine monitor (VMM) hands over so that somebody else fills its guest's memory. */
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { LARGE_PAGE_BYTES } from "../../stream/hello.ts";
import { PostcopyError } from "../../util/errors.ts";
import { formatBytes } from "../../util/units.ts";

/** A range of the VMM's address space that is guest memory. Bytes throughout. */
export interface Region {
  /** Where it begins in the VMM's address space. */
  address: number;
  length: number;
  /** Where it begins in the guest's memory as it was saved: in the memory file. */
  offset: number;
  /** The page size of its mapping: what is placed as one. */
  pageSize: number;
}

/** A handover that has been understood, whoever's it was. */
export interface Handover {
  /** By address. */
  regions: readonly Region[];
}

/** One way in which VMMs say what they hand over: one file each. */
export interface HandoverFormat {
  /** Of whom, for people: "Firecracker". */
  name: string;
  /**
   * Reads a message as far as it has come. Returns undefined while it may still be incomplete.
   * @throws HandoverError when it can be no message of this format, whatever follows.
   */
  parse(text: string): Handover | undefined;
}

/** A VMM's handover that is not what it should be. */
export class HandoverError extends PostcopyError {}

/** Page sizes of x86-64 and arm64: 4 KiB, 64 KiB, 2 MiB, 32 MiB, 512 MiB, 1 GiB and between. */
const PAGE_SIZE_MAX = 2 ** 30;
/** User space of a 64-bit machine with five levels of page tables ends at 2^56; numbers at 2^53. */
const ADDRESS_MAX = Number.MAX_SAFE_INTEGER;

/** The regions in order, each of them looked at. @throws HandoverError. */
export function checkRegions(regions: readonly Region[]): Region[] {
  if (regions.length === 0) {
    throw new HandoverError("NO_REGIONS", "The VMM hands over no memory: its list is empty");
  }
  for (const [index, region] of regions.entries()) checkRegion(region, index);
  const byAddress = regions.toSorted((a, b) => a.address - b.address);
  refuseOverlap(byAddress, "address", "in its address space");
  const byOffset = regions.toSorted((a, b) => a.offset - b.offset);
  refuseOverlap(byOffset, "offset", "in the memory that was saved");
  return byAddress;
}

function checkRegion(region: Region, index: number): void {
  const { address, length, offset, pageSize } = region;
  const name = describeRegion(region, index);
  const isPowerOfTwo = Number.isInteger(Math.log2(pageSize));
  if (!isPowerOfTwo || pageSize < TARGET_PAGE_SIZE || pageSize > PAGE_SIZE_MAX) {
    throw new HandoverError("PAGE_SIZE", `${name} has pages of ${pageSize} bytes`);
  }
  if (length === 0) throw new HandoverError("EMPTY_REGION", `${name} has no bytes`);
  for (const [what, value] of Object.entries({ address, length, offset })) {
    if (value % pageSize === 0) continue;
    const sizes = `its ${what}, ${value}, is no multiple of its page size, ${pageSize}`;
    throw new HandoverError("UNALIGNED_REGION", `${name}: ${sizes}`);
  }
  if (address + length > ADDRESS_MAX || offset + length > ADDRESS_MAX) {
    throw new HandoverError("BAD_REGION", `${name} ends beyond every address space`);
  }
}

/**
 * The page size of all regions, in bytes.
 * @throws HandoverError where they differ, or are neither base pages nor huge ones of 2 MiB.
 */
export function commonPageSize(regions: readonly Region[]): number {
  const [first = TARGET_PAGE_SIZE, ...others] = new Set(regions.map(({ pageSize }) => pageSize));
  if (others.length > 0) {
    const sizes = [first, ...others].map(formatBytes).join(" and ");
    throw new HandoverError("MIXED_PAGES", `The VMM's regions have pages of ${sizes}`);
  }
  if (first === TARGET_PAGE_SIZE || first === LARGE_PAGE_BYTES) return first;
  const filled = [TARGET_PAGE_SIZE, LARGE_PAGE_BYTES].map(formatBytes).join(" or ");
  const what = `The VMM's regions have pages of ${formatBytes(first)}`;
  throw new HandoverError("PAGE_SIZE", `${what}, and only those of ${filled} can be filled`);
}

function refuseOverlap(
  sorted: readonly Region[],
  start: "address" | "offset",
  where: string,
): void {
  for (const [index, region] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next === undefined || region[start] + region.length <= next[start]) continue;
    const both = `${describeRegion(region)} and ${describeRegion(next)}`;
    throw new HandoverError("OVERLAPPING_REGIONS", `${both} overlap ${where}`);
  }
}

/** For errors: where it is and how long. */
export function describeRegion({ address, length }: Region, index?: number): string {
  const number = index === undefined ? "" : ` ${index}`;
  return `Region${number} (${length} bytes at 0x${address.toString(16)})`;
}
