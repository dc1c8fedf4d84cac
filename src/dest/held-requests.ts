/** Page requests that were held back: each page says for itself that it is awaited. */
import type { RamBlock } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { ReturnPath } from "./return-path.ts";
import { HELD, WORD } from "./shared.ts";
import type { DestShared, PageState } from "./shared.ts";

/**
 * Asks for every page that somebody waits for. From here on the fault thread sends its requests itself;
 * one that it sends just now may be sent twice.
 */
export function releaseRequests(
  shared: DestShared,
  blocks: readonly RamBlock[],
  pages: PageState,
  returnPath: Pick<ReturnPath, "addRequest" | "flushRequests">,
): void {
  Atomics.store(shared.control, WORD.requestsHeld, HELD.no);
  for (const block of blocks) {
    const requestedAt = pages.requestedAt[block.index] ?? [];
    for (let page = 0; page < requestedAt.length; page++) {
      if (requestedAt[page] !== 0) returnPath.addRequest(block, page * TARGET_PAGE_SIZE);
    }
  }
  returnPath.flushRequests();
}
