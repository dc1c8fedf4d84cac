/** The destination's listen thread: parked until LISTEN, then the reader of the stream. */
import { raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { Channel } from "../channel/channel.ts";
import { awaitThread } from "../dest/context.ts";
import { runListen } from "../dest/listen.ts";
import { Placer } from "../dest/placer.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { openStoreSink } from "../guests/registry.ts";
import type { ListenTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** How long this thread leaves the fault thread alone with events that keep it from placing. */
const EVENTS_PAUSE_MS = 0.05;

function run(task: ListenTask): void {
  const { memory, fd, stopFd, peer } = task;
  const shared = new DestShared(task.shared);
  const pages = attachPageState(memory.pages, memory.blocks);
  awaitThread(shared, (ms) => shared.listenStart.wait(ms));
  const [address = 0, length = 0, pos = 0, end = 0, base = 0] = shared.position;
  const channel = new Channel(
    { fd, stopFd, peer, bufferBytes: 0 },
    { address, length, pos, end, base },
  );
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const store = openStoreSink(task.guest, memory.sinkData, pages, channel.buffer, shared.control);
  const placer =
    store === undefined
      ? new Placer({
          shared,
          pages,
          buffer: channel.buffer,
          times: shared.listenTimes,
          urgent: false,
          drainEvents: () => Atomics.wait(pause, 0, 0, EVENTS_PAUSE_MS),
        })
      : undefined;
  const sink = store ?? placer;
  if (sink === undefined) throw new Error("a guest without a place for its pages");
  shared.listenThreadSem.post();
  runListen({
    channel,
    returnPath: new ReturnPath(channel, shared.returnPathLock),
    shared,
    blocks: memory.blocks,
    sink,
    counts: placer?.counts,
    ramSectionId: memory.ramSectionId,
    stopFaultThread: () => {
      raiseEventDescriptor(task.faultStopFd);
      awaitThread(shared, (ms) => shared.faultThreadDone.wait(ms));
    },
  });
}

serveThread(run);
