/** A thread of the source that pushes on one channel beside the main one. */
import { Channel } from "../channel/channel.ts";
import { openSourceGuest } from "../guests/registry.ts";
import { openMovedRuns } from "../report/moved-pages.ts";
import { runPushChannel } from "../source/push-channels.ts";
import { RamWriter } from "../source/ram-writer.ts";
import { SourceShared } from "../source/shared.ts";
import { givePushWay } from "./push-priority.ts";
import type { PushTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

function run({ index, fd, mainFd, stopFd, peer, settings, ...task }: PushTask): void {
  const guest = openSourceGuest(task.guest);
  const shared = new SourceShared(task.shared, guest.blocks, index);
  const pages = guest.openPages();
  const context = {
    guest,
    shared,
    settings,
    channel: new Channel({ fd, stopFd, peer, bufferBytes: 0 }),
    // What is recorded goes on the main channel.
    replay: new Uint32Array(),
    makeWriter: () => new RamWriter(pages, openMovedRuns(shared.moved, guest.blocks)),
    giveWay: givePushWay,
  };
  runPushChannel(context, index, mainFd);
}

serveThread(run);
