/** The records of a push channel, the main one or one beside it, as they are read from LISTEN on. */
import type { Channel } from "../channel/channel.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { checkStop } from "./context.ts";
import type { PageSink } from "./guest.ts";
import { addPlaceCounts } from "./placer.ts";
import type { PlaceCounts } from "./placer.ts";
import { RamLoader } from "./ram-loader.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** What a push channel is read with. */
export interface PushedRecords {
  channel: Channel;
  /** Of this channel. */
  shared: DestShared;
  blocks: readonly RamBlock[];
  /** Where pages go, and what came of it for sinks that place. */
  sink: PageSink;
  counts: PlaceCounts | undefined;
}

/** A loader of what both ends have chosen to send. */
export function openPushLoader({ channel, shared, blocks, sink }: PushedRecords): RamLoader {
  const loader = new RamLoader(channel);
  loader.blocks = blocks;
  loader.sink = sink;
  loader.handed = () => checkStop(shared);
  loader.runs = Atomics.load(shared.control, WORD.pageRuns) === 1;
  loader.packedRuns = Atomics.load(shared.control, WORD.packedRuns) === 1;
  return loader;
}

/** Counts what the loader has loaded since. */
export function countPushed({ shared, channel, counts }: PushedRecords, loader: RamLoader): void {
  const { counters } = shared;
  counters.add(DEST.pagesPushed, loader.normal);
  counters.add(DEST.pagesPushedZero, loader.zero);
  loader.normal = 0;
  loader.zero = 0;
  counters.set(DEST.bytesReceived, channel.reader.offset);
  if (counts !== undefined) addPlaceCounts(counters, counts);
}
