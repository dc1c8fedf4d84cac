/**
 * Where the regions of a VMM get their pages: the offset of a region counts over the RAM blocks of the
 * source, one behind the other in the order of the stream. A memory file is one block, so that is the
 * offset into the file; of a QEMU's guest `pc.ram` comes first.
 */
import type { AddressPiece } from "../../ram/address-map.ts";
import type { RamBlock } from "../../ram/block.ts";
import { totalBytes } from "../../ram/block.ts";
import { StreamError } from "../../util/errors.ts";
import { formatBytes } from "../../util/units.ts";
import { describeRegion } from "./handover.ts";
import type { Region } from "./handover.ts";

/** The pieces of all regions. @throws StreamError where the source has no such memory. */
export function placeRegions(
  regions: readonly Region[],
  blocks: readonly RamBlock[],
): AddressPiece[] {
  return regions.flatMap((region) => placeRegion(region, blocks));
}

/**
 * What of the blocks no region covers, in words; undefined if all is. Beside its memory a QEMU has RAM
 * blocks that no VMM needs; what a VMM has saved is for all of its regions, and for nothing else.
 */
export function describeRest(
  regions: readonly Region[],
  blocks: readonly RamBlock[],
): string | undefined {
  const total = totalBytes(blocks);
  const covered = regions.reduce((sum, { length }) => sum + length, 0);
  if (covered >= total) return undefined;
  return (
    `The source has ${formatBytes(total)} of memory, and the VMM has handed over ` +
    `${formatBytes(covered)}: the rest is dropped. Is it the guest that the VMM restores?`
  );
}

function placeRegion(region: Region, blocks: readonly RamBlock[]): AddressPiece[] {
  const end = region.offset + region.length;
  if (end > totalBytes(blocks)) {
    const needed = `goes up to ${formatBytes(end)} of the guest that was saved`;
    const what = `${describeRegion(region)} ${needed}, which has ${formatBytes(totalBytes(blocks))}`;
    throw new StreamError("REGION_BEYOND_MEMORY", what, {
      hint: "send the memory of the guest that the VMM restores",
    });
  }
  const pieces: AddressPiece[] = [];
  let blockAt = 0;
  for (const block of blocks) {
    const from = Math.max(region.offset, blockAt);
    const to = Math.min(end, blockAt + block.length);
    if (from < to) {
      const offset = from - blockAt;
      checkAlignment(region, block, offset);
      const address = region.address + from - region.offset;
      pieces.push({ address, length: to - from, block: block.index, offset });
    }
    blockAt += block.length;
  }
  return pieces;
}

/** A page of the region must be one of the block. */
function checkAlignment(region: Region, block: RamBlock, offset: number): void {
  if (block.pageSize === region.pageSize && offset % region.pageSize === 0) return;
  const pages = formatBytes(region.pageSize);
  const where = `RAM block ${block.name} of ${block.length} bytes, at ${offset}`;
  throw new StreamError(
    "PAGE_SIZE",
    `${describeRegion(region)} has pages of ${pages}: not in ${where}`,
  );
}
