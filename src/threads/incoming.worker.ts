/** The destination's incoming thread: finds its connection, then receives the guest. */
import {
  closeDescriptor,
  raiseEventDescriptor,
  replaceDescriptor,
  setNonBlocking,
} from "../../syscalls/descriptor.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { Channel } from "../channel/channel.ts";
import { describePeer, THE_SOURCE } from "../channel/describe-peer.ts";
import { Door } from "../channel/accept.ts";
import type { Accepted } from "../channel/accept.ts";
import { tuneConnection } from "../channel/tune.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import { makeSocketPair, shutdownSocket } from "../../syscalls/socket.ts";
import type { DestEvent } from "../dest/context.ts";
import { IncomingLoader } from "../dest/incoming.ts";
import type { IncomingOutcome } from "../dest/completion.ts";
import { MultifdBarrier } from "../dest/multifd-barrier.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { DestShared } from "../dest/shared.ts";
import { withFurtherPushChannels } from "../stream/further-channel.ts";
import { FEATURE, FEATURES_OURS } from "../stream/hello.ts";
import { isResumed, openDestGuest } from "../guests/registry.ts";
import { errorChain } from "../util/errors.ts";
import type { PostcopyError } from "../util/errors.ts";
import { formatDuration } from "../util/duration.ts";
import type { IncomingNews, IncomingResult, IncomingTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Receive buffer of the main channel: many pages a read, and little to move when it is full. */
const MAIN_BUFFER_BYTES = 1024 * 1024;

/** What brings one connection after the other. */
function openArrival(task: IncomingTask, warnings: LimitedWarnings): () => Accepted {
  const { arrival, stopFd, linkTimeoutMs } = task;
  if (arrival.kind === "descriptor") {
    return () => {
      tuneConnection(arrival.fd, linkTimeoutMs);
      return { main: arrival.fd, others: [] };
    };
  }
  const { fd: listenFd, allow } = arrival;
  const door = Door.forMigration({ listenFd, allow, stopFd, linkTimeoutMs, warnings });
  return () => {
    const accepted = door.open(Infinity);
    if (accepted === undefined) throw new Error("nobody was waited for");
    return accepted;
  };
}

/** The connection under its number, and what is made of it once, however many come. */
interface Line {
  channel: Channel;
  returnPath: ReturnPath;
  shared: DestShared;
}

/** Puts a guest together that comes over a channel. */
function openLoader(
  task: IncomingTask,
  { channel, returnPath, shared }: Line,
  tell: (news: IncomingNews) => void,
): IncomingLoader {
  const { arrival, linkTimeoutMs, lockMemory } = task;
  const emit = (event: DestEvent): void => tell({ ...event, atNs: monotonicNs() });
  const guest = openDestGuest(task.guest, tell);
  // A further connection comes only where this process listens.
  const lacks =
    ((FEATURE.smallPages | FEATURE.largePages) & ~(guest.needs ?? 0)) |
    (arrival.kind === "listen" ? 0 : FEATURE.urgentChannel) |
    (guest.devices.kind === "modelled" ? 0 : FEATURE.devicesAhead);
  // A guest that is kept has one thread that stores its pages.
  const places = arrival.kind === "listen" && guest.memory !== "stored";
  const further = places ? task.pushChannels : 0;
  return new IncomingLoader({
    channel,
    returnPath,
    guest,
    shared,
    features: withFurtherPushChannels(FEATURES_OURS & ~lacks, further),
    linkTimeoutMs,
    othersMayCome: arrival.kind === "listen" && arrival.alone !== true,
    multifd:
      task.multifdEndFd < 0
        ? undefined
        : new MultifdBarrier(shared, () => raiseEventDescriptor(task.multifdEndFd)),
    lockMemory,
    announceMemory: (memory) => tell({ kind: "memory", memory }),
    emit,
  });
}

/** Goes on with a guest that another process took over: its source is yet to come back. */
function resume(task: IncomingTask, tell: (news: IncomingNews) => void): IncomingOutcome {
  // Until it has, what is there is a connection that was closed.
  const [fd, other] = makeSocketPair();
  closeDescriptor(other);
  setNonBlocking(fd, true);
  tell({ kind: "resuming", fd });
  return openLoader(task, openLine(task, fd, THE_SOURCE), tell).resume();
}

function openLine({ stopFd, shared: data }: IncomingTask, fd: number, peer: string): Line {
  const channel = new Channel({ fd, stopFd, peer, bufferBytes: MAIN_BUFFER_BYTES });
  const shared = new DestShared(data);
  return { channel, shared, returnPath: new ReturnPath(channel, shared.returnPathLock) };
}

/** Takes connections until one of them brings a guest. */
function receive(task: IncomingTask, tell: (news: IncomingNews) => void): IncomingOutcome {
  const warnings = new LimitedWarnings((message) => {
    tell({ kind: "warning", message, atNs: monotonicNs() });
  });
  const accept = openArrival(task, warnings);
  let line: Line | undefined;
  let loader: IncomingLoader | undefined;
  for (;;) {
    const { main, others } = accept();
    const peer = describePeer(main);
    if (line === undefined) {
      line = openLine(task, main, peer);
    } else {
      // Main knows the connection by its number.
      replaceDescriptor(line.channel.fd, main);
      line.channel.startOver(peer);
    }
    const { fd } = line.channel;
    // Where a source has begun before, the other threads have theirs, and get no more.
    if (loader?.hasBegun === true) others.splice(0).forEach(closeDescriptor);
    else loader = openLoader(task, line, tell);
    tell({ kind: "connected", fd, others, peer });
    const outcome = loader.run();
    if ("completedIn" in outcome) return outcome;
    shutdownSocket(fd);
    if (!loader.hasBegun) others.forEach(closeDescriptor);
    // Their numbers may be another's from here on: main is not to close them too.
    tell({ kind: "turnedAway" });
    const who = peer === THE_SOURCE ? "Somebody" : peer;
    warnings.say(`${who} ${refusalText(outcome.turnedAway, task.linkTimeoutMs)}`);
  }
}

function refusalText(why: PostcopyError, linkTimeoutMs: number): string {
  if (why.code !== "PEER_SLOW") return `was turned away: ${errorChain(why)}`;
  const time = formatDuration(linkTimeoutMs);
  return `began as a source and got no further in ${time}: it was turned away`;
}

function run(task: IncomingTask, tell: (news: IncomingNews) => void): IncomingResult {
  return isResumed(task.guest) ? resume(task, tell) : receive(task, tell);
}

serveThread(run);
