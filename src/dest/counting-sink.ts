/**
 * A sink in front of another one that counts what goes through (src/report/moved-pages.ts). It stands
 * there only where somebody wants to see it.
 */
import type { RamBlock } from "../ram/block.ts";
import { KIND, MovedPages } from "../report/moved-pages.ts";
import type { Kind } from "../report/moved-pages.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { PageSink } from "./guest.ts";
import { WORD } from "./shared.ts";
import type { DestShared, PageState } from "./shared.ts";

/** Counts the pages [offset, offset + count * 4096) of a block. */
type Count = (block: RamBlock, offset: number, count: number) => void;

/**
 * The sink, counted as `kind` where this migration is counted, else as it is. `pages` says what is
 * asked for, on a channel on which requested pages come too unless they have one of their own.
 */
export function countedSink(
  sink: PageSink,
  kind: Kind,
  shared: DestShared,
  blocks: readonly RamBlock[],
  pages?: PageState,
): PageSink {
  if (shared.moved === undefined) return sink;
  const moved = new MovedPages(shared.moved, blocks);
  const ownChannel = Atomics.load(shared.control, WORD.urgentChosen) === 1;
  if (pages === undefined || ownChannel) {
    return inFrontOf(sink, (block, offset, count) => moved.add(kind, block, offset, count));
  }
  return inFrontOf(sink, (block, offset, count) => {
    countRequested(moved, kind, pages.requestedAt[block.index], block, offset, count);
  });
}

function inFrontOf(sink: PageSink, count: Count): PageSink {
  const counted: PageSink = {
    pages: (block, offset, at, pages) => {
      count(block, offset, pages);
      sink.pages(block, offset, at, pages);
    },
    zeros: (block, offset, pages) => {
      count(block, offset, pages);
      sink.zeros(block, offset, pages);
    },
    dropPart: () => sink.dropPart?.(),
  };
  if (sink.scattered !== undefined) {
    const scattered = sink.scattered.bind(sink);
    counted.scattered = (block, offset, places, pages) => {
      count(block, offset, pages);
      scattered(block, offset, places, pages);
    };
  }
  if (sink.readPage !== undefined) counted.readPage = sink.readPage.bind(sink);
  return counted;
}

/** By host pages: a request is noted at the first target page, and answered with all of them. */
function countRequested(
  moved: MovedPages,
  kind: Kind,
  requestedAt: Int32Array | undefined,
  block: RamBlock,
  offset: number,
  count: number,
): void {
  const end = offset + count * TARGET_PAGE_SIZE;
  for (let at = offset; at < end;) {
    const hostPage = at - (at % block.pageSize);
    const next = Math.min(end, hostPage + block.pageSize);
    const page = hostPage / TARGET_PAGE_SIZE;
    const awaited = requestedAt !== undefined && Atomics.load(requestedAt, page) !== 0;
    moved.add(awaited ? KIND.request : kind, block, at, (next - at) / TARGET_PAGE_SIZE);
    at = next;
  }
}
