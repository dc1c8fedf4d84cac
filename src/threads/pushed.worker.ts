/** A thread of the destination that reads one push channel beside the main one. */
import { Channel } from "../channel/channel.ts";
import { countedSink } from "../dest/counting-sink.ts";
import { pauseForEvents } from "../dest/events-pause.ts";
import { Placer } from "../dest/placer.ts";
import { runPushed } from "../dest/pushed-pages.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { AddressMap } from "../ram/address-map.ts";
import { KIND } from "../report/moved-pages.ts";
import type { PushedTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Receive buffer, as that of the main channel. */
const BUFFER_BYTES = 1024 * 1024;

function run({ index, memory, fd, mainFd, linkTimeoutMs, peer, ...task }: PushedTask): void {
  const shared = new DestShared(task.shared, index);
  const { blocks, foreign } = memory;
  const pages = attachPageState(memory.pages, blocks);
  const channel = new Channel({ fd, stopFd: task.stopFd, peer, bufferBytes: BUFFER_BYTES });
  const placer = new Placer({
    ...{ shared, pages, map: new AddressMap(memory.map), foreign },
    buffer: channel.buffer,
    times: shared.listenTimes,
    urgent: false,
    drainEvents: pauseForEvents,
  });
  const sink = countedSink(placer, KIND.push, shared, blocks);
  const { counts } = placer;
  runPushed({ index, channel, shared, blocks, sink, counts, linkTimeoutMs, mainFd });
}

serveThread(run);
