/** Where pages of the main stream go up to LISTEN: into files, into a VMM, or into memory of this process. */
import { MemoryWindows } from "../ram/windows.ts";
import { KIND } from "../report/moved-pages.ts";
import type { ArrivingMemory } from "./arriving-memory.ts";
import type { IncomingContext } from "./context.ts";
import { countedSink } from "./counting-sink.ts";
import { pauseForEvents } from "./events-pause.ts";
import type { PageSink } from "./guest.ts";
import { bindIdentity } from "./identity.ts";
import { MemorySink } from "./memory-sink.ts";
import type { OwedPages } from "./owed-pages.ts";
import { addPlaceCounts, Placer } from "./placer.ts";

export interface PrecopySink {
  sink: PageSink;
  /** Adds what the sink has counted since the last time to where that is kept. */
  account: () => void;
}

/** The sink for a guest whose memory is there; `owed` is told of pages that were not here before. */
export function makePrecopySink(
  context: IncomingContext,
  memory: ArrivingMemory,
  owed: OwedPages,
): PrecopySink {
  const { channel, guest, shared } = context;
  const stored = guest.storeSink?.(memory.pages, channel.buffer);
  const { sink, account } =
    stored === undefined
      ? (placingSink(context, memory) ?? memorySink(context, memory, owed))
      : { sink: stored, account: () => {} };
  return { sink: countedSink(sink, KIND.precopy, shared, memory.blocks), account };
}

function placingSink(
  context: IncomingContext,
  { pages, foreign }: ArrivingMemory,
): PrecopySink | undefined {
  if (foreign === undefined) return undefined;
  const { channel, shared } = context;
  const placer = new Placer({
    ...{ shared, pages, buffer: channel.buffer, times: shared.listenTimes },
    ...{ map: foreign.map, foreign: true, urgent: false },
    drainEvents: pauseForEvents,
  });
  const account = (): void => addPlaceCounts(shared.counters, placer.counts);
  return { sink: bindingSink(context, placer), account };
}

/** A page that is placed cannot be taken back: before the first one it is settled whose they are. */
function bindingSink(context: IncomingContext, placer: Placer): PageSink {
  return {
    pages: (block, offset, at, count) => {
      bindIdentity(context);
      placer.pages(block, offset, at, count);
    },
    zeros: (block, offset, count) => {
      bindIdentity(context);
      placer.zeros(block, offset, count);
    },
    dropPart: () => placer.dropPart(),
  };
}

function memorySink(
  { channel }: IncomingContext,
  { blocks, pages }: ArrivingMemory,
  owed: OwedPages,
): PrecopySink {
  const windows = blocks.map(({ address, length }) => new MemoryWindows(address, length));
  const sink = new MemorySink(windows, pages, channel.buffer.bytes);
  const account = (): void => {
    owed.arrived(sink.fresh);
    sink.fresh = 0;
  };
  return { sink, account };
}
