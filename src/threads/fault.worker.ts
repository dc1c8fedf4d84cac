/** The destination's fault thread: parked until a switchover is near, or LISTEN; then at the service of faults. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { Channel } from "../channel/channel.ts";
import { awaitThread } from "../dest/context.ts";
import { FaultThread } from "../dest/fault.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { AddressMap } from "../ram/address-map.ts";
import { SpinBudget } from "../sync/spin-budget.ts";
import { openArrivalSink } from "./arrival-sink.ts";
import type { FaultNews, FaultTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Receive buffer of an urgent channel: a few hundred pages, of which one is there at a time. */
const URGENT_BUFFER_BYTES = 1024 * 1024;

function run(task: FaultTask, tell: (news: FaultNews) => void): void {
  const { memory, stopFd, peer } = task;
  const shared = new DestShared(task.shared);
  const pages = attachPageState(memory.pages, memory.blocks);
  const map = new AddressMap(memory.map);
  const arriving = { guest: task.guest, memory, pages, map, shared };
  try {
    awaitThread(shared, (ms) => shared.faultStart.wait(ms));
  } catch (error) {
    for (const fd of task.early) closeDescriptor(fd);
    throw error;
  }
  const main = new Channel({ fd: task.fd, stopFd, peer, bufferBytes: 0 });
  const thread = new FaultThread({
    shared,
    blocks: memory.blocks,
    pages,
    map,
    foreign: memory.foreign,
    eventsAt: memory.eventsAt,
    returnPath: new ReturnPath(main, shared.returnPathLock),
    listenFd: task.listenFd,
    allow: task.allow,
    early: task.early,
    spinning: new SpinBudget(),
    stopFd: task.faultStopFd,
    openUrgent: (fd) => {
      const channel = new Channel({ fd, stopFd, peer, bufferBytes: URGENT_BUFFER_BYTES });
      const placing = { urgent: true, drainEvents: () => thread.makeWay() };
      return { channel, ...openArrivalSink(arriving, channel.buffer, placing) };
    },
    openPush: (fd) => tell({ kind: "push channel", fd }),
    linkTimeoutMs: task.linkTimeoutMs,
    handed: () => thread.workedOn(),
    warn: (message) => tell({ kind: "warning", message }),
  });
  shared.faultThreadSem.post();
  thread.run();
  // The listen thread closes the userfaultfd once nobody reads it any more.
  shared.faultThreadDone.post();
}

serveThread(run);
