/** Where a thread of the destination puts the pages of postcopy: into files, or into userfault memory. */
import { countedSink } from "../dest/counting-sink.ts";
import type { GuestMemory } from "../dest/context.ts";
import type { PageSink, ReceiveBuffer } from "../dest/guest.ts";
import { Placer } from "../dest/placer.ts";
import type { PlaceCounts, PlacerOptions } from "../dest/placer.ts";
import type { DestShared, PageState } from "../dest/shared.ts";
import { openStoreSink } from "../guests/registry.ts";
import type { DestGuestData } from "../guests/registry.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { KIND } from "../report/moved-pages.ts";

/** The guest that arrives, as each thread knows it. */
export interface ArrivingGuest {
  guest: DestGuestData;
  memory: GuestMemory;
  /** Of `memory`, attached to. */
  pages: PageState;
  map: AddressMap;
  shared: DestShared;
}

/** A sink, and what came of placing if it places. */
export interface ArrivalSink {
  sink: PageSink;
  counts: PlaceCounts | undefined;
}

/**
 * The sink for pages that come through a channel's receive buffer: an urgent one, on which pages come that
 * were asked for, or the main one.
 */
export function openArrivalSink(
  { guest, memory, pages, map, shared }: ArrivingGuest,
  buffer: ReceiveBuffer,
  { urgent, drainEvents }: Pick<PlacerOptions, "urgent" | "drainEvents">,
): ArrivalSink {
  const counted = (sink: PageSink): PageSink =>
    urgent
      ? countedSink(sink, KIND.request, shared, memory.blocks)
      : countedSink(sink, KIND.push, shared, memory.blocks, pages);
  const store = openStoreSink(guest, memory.sinkData, pages, buffer, shared.control);
  if (store !== undefined) return { sink: counted(store), counts: undefined };
  const placer = new Placer({
    ...{ shared, pages, map, foreign: memory.foreign, buffer, urgent, drainEvents },
    times: urgent ? shared.faultTimes : shared.listenTimes,
  });
  return { sink: counted(placer), counts: placer.counts };
}
