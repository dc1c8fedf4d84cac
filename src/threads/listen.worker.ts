/** The destination's listen thread: parked until LISTEN, then the reader of the stream. */
import { closeDescriptor, raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { Door } from "../channel/accept.ts";
import { Channel } from "../channel/channel.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import { awaitThread } from "../dest/context.ts";
import type { DestEvent } from "../dest/context.ts";
import { countedSink } from "../dest/counting-sink.ts";
import { pauseForEvents } from "../dest/events-pause.ts";
import { runListen } from "../dest/listen.ts";
import { Placer } from "../dest/placer.ts";
import { recoverLink } from "../dest/recovery.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { AddressMap } from "../ram/address-map.ts";
import { isResumed, openStoreSink } from "../guests/registry.ts";
import { KIND } from "../report/moved-pages.ts";
import type { ListenTask, Stamped } from "./tasks.ts";
import { serveThread } from "./thread.ts";

function run(task: ListenTask, tell: (news: Stamped<DestEvent>) => void): void {
  const { memory, fd, stopFd, listenFd, allow, linkTimeoutMs, peer } = task;
  const shared = new DestShared(task.shared);
  const pages = attachPageState(memory.pages, memory.blocks);
  const place = { map: new AddressMap(memory.map), foreign: memory.foreign };
  // Nobody else reads the stream once it is handed over; until then there is nothing to do here.
  shared.listenThreadSem.post();
  awaitThread(shared, (ms) => shared.listenStart.wait(ms));
  const [address = 0, length = 0, pos = 0, end = 0, base = 0] = shared.position;
  const channel = new Channel(
    { fd, stopFd, peer, bufferBytes: 0 },
    { address, length, pos, end, base },
  );
  const store = openStoreSink(task.guest, memory.sinkData, pages, channel.buffer, shared.control);
  const placer =
    store === undefined
      ? new Placer({
          shared,
          pages,
          ...place,
          buffer: channel.buffer,
          times: shared.listenTimes,
          urgent: false,
          drainEvents: pauseForEvents,
        })
      : undefined;
  const sink = store ?? placer;
  if (sink === undefined) throw new Error("a guest without a place for its pages");
  const returnPath = new ReturnPath(channel, shared.returnPathLock);
  const emit = (event: DestEvent): void => tell({ ...event, atNs: monotonicNs() });
  let kept: readonly number[] = [];
  const { blocks, sourceIsOurs } = memory;
  const warnings = new LimitedWarnings((message) => emit({ kind: "warning", message }));
  const entrance = { listenFd, stopFd, allow, linkTimeoutMs, warnings };
  const link = {
    ...{ channel, returnPath, shared, blocks, pages, linkTimeoutMs, warnings, emit },
    sourceIsOurs,
    keep: (descriptors: readonly number[]): void => {
      // Those of the link that broke before are of no more use.
      kept.forEach(closeDescriptor);
      kept = descriptors;
    },
  };
  const door = listenFd < 0 ? undefined : Door.forRecovery(entrance);
  runListen({
    channel,
    returnPath,
    shared,
    resumes: isResumed(task.guest),
    recover:
      door === undefined
        ? undefined
        : (failure, timeoutMs = task.recoverTimeoutMs) =>
            recoverLink({ ...link, door, timeoutMs }, failure),
    blocks,
    ...place,
    needs: memory.needs,
    sink: countedSink(sink, KIND.push, shared, blocks, pages),
    counts: placer?.counts,
    ramSectionId: memory.ramSectionId,
    linkTimeoutMs,
    stopFaultThread: () => {
      raiseEventDescriptor(task.faultStopFd);
      awaitThread(shared, (ms) => shared.faultThreadDone.wait(ms));
    },
  });
  kept.forEach(closeDescriptor);
}

serveThread(run);
