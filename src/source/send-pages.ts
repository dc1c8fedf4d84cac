/** Host pages that are sent after the switchover, by the push or on request. */
import type { RamBlock } from "../ram/block.ts";
import { targetPages, targetPagesPerHostPage } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { RamWriter } from "./ram-writer.ts";
import { WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** Counts host pages that are being sent off the recorded working set, if they belong to it. */
export function noteSent(
  shared: SourceShared,
  block: RamBlock,
  hostPage: number,
  count: number,
): void {
  Atomics.sub(shared.control, WORD.owed, count);
  if (Atomics.load(shared.control, WORD.awaited) === 0) return;
  const awaited = shared.awaited[block.index];
  for (let page = hostPage; page < hostPage + count; page++) {
    if (awaited?.claim(page)) Atomics.sub(shared.control, WORD.awaited, 1);
  }
}

/** Sends host pages, already claimed, as records of `writer` that are written by `flush`. */
export function addHostPages(
  writer: RamWriter,
  block: RamBlock,
  hostPage: number,
  count: number,
  flush: () => void,
): void {
  const perHostPage = targetPagesPerHostPage(block);
  const end = Math.min(targetPages(block), (hostPage + count) * perHostPage);
  for (let page = hostPage * perHostPage; page < end;) {
    if (!writer.hasRoom) flush();
    page += writer.pages(block, page * TARGET_PAGE_SIZE, end - page);
  }
}
