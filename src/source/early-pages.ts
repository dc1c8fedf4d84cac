/** Pages that are sent after the discards and before LISTEN, while the guest cannot run yet. */
import { SOURCE } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import type { SourceContext } from "./context.ts";
import { mainLane, pushChunk } from "./postcopy.ts";
import { ListedOrder } from "./push-order.ts";
import { runsElsewhere } from "./receiver.ts";
import { checkPeer } from "./refusal.ts";
import { checkStop } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** What the guest's start may be delayed by for pages that it will need at once. */
const AHEAD_MS = 10;

/**
 * Sends the head of the recorded working set while the guest cannot run yet, after the discards:
 * a page that is there before LISTEN costs the guest no fault at all. What is sent later races with
 * it, so this pays for as long as the wait is short beside the faults that it saves.
 */
export function sendAhead(context: SourceContext): void {
  const { guest, shared, replay, channel, settings } = context;
  if (replay.length === 0) return;
  if (!runsElsewhere(shared)) return;
  const order = new ListedOrder(replay, guest.blocks, shared);
  const writer = context.makeWriter();
  writer.kind = KIND.replay;
  const before = channel.bytesWritten;
  const deadline = performance.now() + AHEAD_MS;
  // It is a part of the push, whose limit holds for it as well.
  const rate = settings.maxPostcopyBandwidth > 0 ? settings.maxPostcopyBandwidth : Infinity;
  const end = before + (rate * AHEAD_MS) / 1000;
  while (performance.now() < deadline && channel.bytesWritten < end && order.find()) {
    checkStop(shared);
    checkPeer(shared);
    pushChunk(context, writer, order, mainLane(shared));
  }
  shared.counters.add(SOURCE.bytesPostcopy, channel.bytesWritten - before);
}

/**
 * Sends the pages that the device state points at: whoever loads it would wait for each of them. They
 * come before LISTEN, so at both ends they count as pages of precopy that are owed no more.
 */
export function sendDevicePages(context: SourceContext): void {
  const { guest, shared, channel } = context;
  const pages = guest.devicePages?.();
  if (pages === undefined) return;
  const { counters } = shared;
  const bytes = channel.bytesWritten;
  const before = precopyPages(shared);
  const order = new ListedOrder(pages, guest.blocks, shared);
  const writer = context.makeWriter();
  writer.kind = KIND.precopy;
  while (order.find()) pushChunk(context, writer, order, mainLane(shared));
  counters.add(SOURCE.owedPages, before - precopyPages(shared));
  counters.add(SOURCE.bytesPrecopy, channel.bytesWritten - bytes);
}

function precopyPages({ counters }: SourceShared): number {
  return counters.get(SOURCE.pagesNormalPrecopy) + counters.get(SOURCE.pagesZeroPrecopy);
}
