/** The destination's listen thread: parked until LISTEN, then the reader of the stream. */
import { closeDescriptor, raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { Door } from "../channel/accept.ts";
import { Channel } from "../channel/channel.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import { awaitThread } from "../dest/context.ts";
import type { DestEvent } from "../dest/context.ts";
import { pauseForEvents } from "../dest/events-pause.ts";
import { runListen } from "../dest/listen.ts";
import { recoverLink } from "../dest/recovery.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { AddressMap } from "../ram/address-map.ts";
import { isResumed } from "../guests/registry.ts";
import { openArrivalSink } from "./arrival-sink.ts";
import type { ListenTask, Stamped } from "./tasks.ts";
import { serveThread } from "./thread.ts";

function run(task: ListenTask, tell: (news: Stamped<DestEvent>) => void): void {
  const { memory, fd, stopFd, listenFd, allow, linkTimeoutMs, peer } = task;
  const shared = new DestShared(task.shared);
  const pages = attachPageState(memory.pages, memory.blocks);
  const map = new AddressMap(memory.map);
  const arriving = { guest: task.guest, memory, pages, map, shared };
  // Nobody else reads the stream once it is handed over; until then there is nothing to do here.
  shared.listenThreadSem.post();
  awaitThread(shared, (ms) => shared.listenStart.wait(ms));
  const [address = 0, length = 0, pos = 0, end = 0, base = 0] = shared.position;
  const channel = new Channel(
    { fd, stopFd, peer, bufferBytes: 0 },
    { address, length, pos, end, base },
  );
  const { sink, counts } = openArrivalSink(arriving, channel.buffer, {
    urgent: false,
    drainEvents: pauseForEvents,
  });
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
    map,
    foreign: memory.foreign,
    needs: memory.needs,
    sink,
    counts,
    ramSectionId: memory.ramSectionId,
    linkTimeoutMs,
    pushStopFd: task.pushStopFd,
    stopFaultThread: () => {
      raiseEventDescriptor(task.faultStopFd);
      awaitThread(shared, (ms) => shared.faultThreadDone.wait(ms));
    },
  });
  kept.forEach(closeDescriptor);
}

serveThread(run);
