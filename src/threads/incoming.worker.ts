/** The destination's incoming thread: finds its connection, then receives the guest. */
import {
  closeDescriptor,
  raiseEventDescriptor,
  setNonBlocking,
} from "../../syscalls/descriptor.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import { formatSocketPeer } from "../channel/address.ts";
import { Channel } from "../channel/channel.ts";
import { acceptMigration } from "../channel/accept.ts";
import type { Accepted } from "../channel/accept.ts";
import { makeSocketPair, remoteAddress } from "../../syscalls/socket.ts";
import type { DestEvent } from "../dest/context.ts";
import { IncomingLoader, SILENCE_LIMIT_MS } from "../dest/incoming.ts";
import { MultifdBarrier } from "../dest/multifd-barrier.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { DestShared } from "../dest/shared.ts";
import { FEATURE, FEATURES_OURS } from "../stream/hello.ts";
import { isResumed, openDestGuest } from "../guests/registry.ts";
import type { IncomingNews, IncomingResult, IncomingTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Receive buffer of the main channel: many pages a read, and little to move when it is full. */
const MAIN_BUFFER_BYTES = 1024 * 1024;

interface Link {
  fd: number;
  peer: string;
}

function accept(task: IncomingTask, tell: (news: IncomingNews) => void): Accepted {
  const { arrival, stopFd } = task;
  if (arrival.kind === "descriptor") return { main: arrival.fd, others: [] };
  const warn = (message: string): void => {
    tell({ kind: "warning", message, atNs: monotonicNs() });
  };
  return acceptMigration(arrival.fd, stopFd, warn);
}

/** Who is at the other end, as far as the socket knows. */
function describePeer(fd: number): string {
  try {
    const address = remoteAddress(fd);
    if (address.family !== "unix") return formatSocketPeer(address);
  } catch {
    // Not a socket: a pipe of exec:, say.
  }
  return "the source";
}

/** The main connection's descriptor, and who is there. */
function connect(task: IncomingTask, tell: (news: IncomingNews) => void): Link {
  if (isResumed(task.guest)) {
    // Until the source has come back, what is there is a connection that was closed.
    const [fd, other] = makeSocketPair();
    closeDescriptor(other);
    setNonBlocking(fd, true);
    tell({ kind: "resuming", fd });
    return { fd, peer: "the source" };
  }
  const { main, others } = accept(task, tell);
  const peer = describePeer(main);
  tell({ kind: "connected", fd: main, others, peer });
  return { fd: main, peer };
}

function run(task: IncomingTask, tell: (news: IncomingNews) => void): IncomingResult {
  const { arrival } = task;
  const { fd, peer } = connect(task, tell);
  const emit = (event: DestEvent): void => tell({ ...event, atNs: monotonicNs() });
  const shared = new DestShared(task.shared);
  const channel = new Channel({ fd, stopFd: task.stopFd, peer, bufferBytes: MAIN_BUFFER_BYTES });
  const loader = new IncomingLoader({
    channel,
    returnPath: new ReturnPath(channel, shared.returnPathLock),
    guest: openDestGuest(task.guest, tell),
    shared,
    // A further connection comes only where this process listens.
    features: FEATURES_OURS & (arrival.kind === "listen" ? ~0 : ~FEATURE.urgentChannel),
    silenceLimitMs: SILENCE_LIMIT_MS,
    multifd:
      task.multifdEndFd < 0
        ? undefined
        : new MultifdBarrier(shared, () => raiseEventDescriptor(task.multifdEndFd)),
    lockMemory: task.lockMemory,
    announceMemory: (memory) => tell({ kind: "memory", memory }),
    emit,
  });
  return isResumed(task.guest) ? loader.resume() : loader.run();
}

serveThread(run);
