/** The destination's multifd thread: at work from the list of RAM blocks to LISTEN. */
import { remoteAddress } from "../../syscalls/socket.ts";
import { Channel } from "../channel/channel.ts";
import { countedSink } from "../dest/counting-sink.ts";
import { MULTIFD_BUFFER_BYTES } from "../dest/multifd-channel.ts";
import { MultifdReceiver } from "../dest/multifd.ts";
import type { MultifdResult } from "../dest/multifd.ts";
import { attachPageState, DestShared } from "../dest/shared.ts";
import { openStoreSink } from "../guests/registry.ts";
import { KIND } from "../report/moved-pages.ts";
import type { MultifdTask, WarningNews } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Where a connection comes from; a unix socket can be reached by its owner only. */
function hostOf(fd: number): string {
  try {
    const address = remoteAddress(fd);
    return address.family === "unix" ? "this host" : address.host;
  } catch {
    return "gone again";
  }
}

function run(task: MultifdTask, tell: (news: WarningNews) => void): MultifdResult {
  const { memory, stopFd, peer, guest } = task;
  const shared = new DestShared(task.shared);
  const pages = attachPageState(memory.pages, memory.blocks);
  const host = hostOf(task.fd);
  return new MultifdReceiver({
    shared,
    blocks: memory.blocks,
    listenFd: task.listenFd,
    early: task.early,
    stopFd,
    endFd: task.endFd,
    isSource: (fd) => hostOf(fd) === host,
    openChannel: (fd) => new Channel({ fd, stopFd, peer, bufferBytes: MULTIFD_BUFFER_BYTES }),
    openSink: (buffer) => {
      const sink = openStoreSink(guest, memory.sinkData, pages, buffer);
      if (sink === undefined) throw new Error("multifd pages of a guest that is not stored");
      return countedSink(sink, KIND.precopy, shared, memory.blocks);
    },
    linkTimeoutMs: task.linkTimeoutMs,
    warn: (message) => tell({ kind: "warning", message }),
  }).run();
}

serveThread(run);
