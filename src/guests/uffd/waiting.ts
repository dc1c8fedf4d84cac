/** Which pages a VMM waits for, in words that its operator can look up. */
import type { GuestMemory } from "../../dest/context.ts";
import { TICKS_PERIOD_NS, ticksSince } from "../../dest/shared.ts";
import { pagesBefore } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { formatDuration } from "../../util/duration.ts";
import { formatCount } from "../../util/units.ts";
import type { Region } from "./handover.ts";

/** A page that somebody waits for. */
interface AwaitedPage {
  block: number;
  /** Where it begins in its block. */
  offset: number;
  waitedNs: number;
}

/** A wait that comes so near to TICKS_PERIOD_NS is one that began while the others were looked at. */
const LOOKING_NS = 1e9;

/**
 * How many pages the VMM's threads wait for, and which of them for the longest time: its region and the
 * offset in that, then its RAM block at the source and the offset there. No fault can have waited since
 * before `sinceNs`; where that is so long ago that waits cannot be told apart, it is one of the pages.
 */
export function describeWaiting(
  memory: Pick<GuestMemory, "blocks" | "pages"> | undefined,
  regions: readonly Region[],
  nowNs: number,
  sinceNs: number,
): string {
  if (memory === undefined) return "no source has come, so none of its faults was looked at";
  const isSure = nowNs - sinceNs < TICKS_PERIOD_NS;
  // The fault thread goes on: what it notes from now on has not waited at all.
  const mostNs = Math.min(nowNs - sinceNs + LOOKING_NS, TICKS_PERIOD_NS - LOOKING_NS);
  let count = 0;
  let longest: AwaitedPage | undefined;
  for (const { index } of memory.blocks) {
    const requestedAt = new Int32Array(memory.pages.requestedAt[index] ?? new ArrayBuffer(0));
    for (const [page, ticks] of requestedAt.entries()) {
      if (ticks === 0) continue;
      count++;
      const sinceThenNs = ticksSince(ticks, nowNs);
      const waitedNs = sinceThenNs > mostNs ? 0 : sinceThenNs;
      if (longest !== undefined && longest.waitedNs >= waitedNs) continue;
      longest = { block: index, offset: page * TARGET_PAGE_SIZE, waitedNs };
    }
  }
  if (longest === undefined) return "no fault waits just now";
  const pages = count === 1 ? "1 page" : `${formatCount(count)} pages`;
  const time = formatDuration(Math.round(longest.waitedNs / 1e6));
  const place = describePlace(longest, memory, regions);
  const which = isSure ? `the longest (${time})` : `one of them (for ${time} or longer)`;
  return `faults on ${pages} wait, ${which} at ${place}`;
}

function describePlace(
  { block: index, offset }: AwaitedPage,
  { blocks }: Pick<GuestMemory, "blocks">,
  regions: readonly Region[],
): string {
  const block = blocks[index];
  if (block === undefined) throw new Error(`there is no block ${index}`);
  // A region's offset counts over all blocks.
  const at = pagesBefore(blocks, block) * TARGET_PAGE_SIZE + offset;
  const number = regions.findIndex((region) => at >= region.offset && at < endOf(region));
  const region = regions[number];
  const there = `${hex(offset)} of ${block.name} at the source`;
  if (region === undefined) return there;
  return `offset ${hex(at - region.offset)} of region ${number} (${there})`;
}

function endOf({ offset, length }: Region): number {
  return offset + length;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
