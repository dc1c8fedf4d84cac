/** The page sizes that the source says, and those that are here: each has to be the same. */
import { pageSizeSummary } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { StreamError } from "../util/errors.ts";
import type { PageSizes } from "./guest.ts";

/** @throws StreamError PAGE_SIZE for target pages of other than 4096 bytes. */
export function requireTargetPageSize(bytes: number): void {
  if (bytes === TARGET_PAGE_SIZE) return;
  const here = `here they have ${TARGET_PAGE_SIZE}`;
  throw new StreamError("PAGE_SIZE", `The source's target pages have ${bytes} bytes, ${here}`);
}

/** @throws StreamError PAGE_SIZE for blocks whose host pages are not those that ADVISE said. */
export function requireHostPageSizes(
  blocks: readonly RamBlock[],
  advice: PageSizes | undefined,
): void {
  const summary = pageSizeSummary(blocks);
  if (advice === undefined || summary === advice.pageSizeSummary) return;
  throw new StreamError(
    "PAGE_SIZE",
    `The source's RAM has page sizes 0x${advice.pageSizeSummary.toString(16)}, here they are ` +
      `0x${summary.toString(16)}: postcopy needs the same on both sides`,
  );
}
