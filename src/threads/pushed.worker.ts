/** A thread of the destination that reads one push channel beside the main one. */
import { Channel } from "../channel/channel.ts";
import { pauseForEvents } from "../dest/events-pause.ts";
import { runPushed } from "../dest/pushed-pages.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { AddressMap } from "../ram/address-map.ts";
import { openArrivalSink } from "./arrival-sink.ts";
import type { PushedTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Receive buffer, as that of the main channel. */
const BUFFER_BYTES = 1024 * 1024;

function run({ guest, index, memory, fd, mainFd, linkTimeoutMs, peer, ...task }: PushedTask): void {
  const shared = new DestShared(task.shared, index);
  const { blocks } = memory;
  const pages = attachPageState(memory.pages, blocks);
  const arriving = { guest, memory, pages, map: new AddressMap(memory.map), shared };
  const channel = new Channel({ fd, stopFd: task.stopFd, peer, bufferBytes: BUFFER_BYTES });
  const placing = { urgent: false, drainEvents: pauseForEvents };
  const { sink, counts } = openArrivalSink(arriving, channel.buffer, placing);
  runPushed({ index, channel, shared, blocks, sink, counts, linkTimeoutMs, mainFd });
}

serveThread(run);
