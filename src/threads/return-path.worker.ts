/** The source's return-path thread: reads requests and answers them itself. */
import { Channel } from "../channel/channel.ts";
import { openSourceGuest } from "../guests/registry.ts";
import { openMovedRuns } from "../report/moved-pages.ts";
import { RamWriter } from "../source/ram-writer.ts";
import { RequestServer } from "../source/request-server.ts";
import { runReturnPath } from "../source/return-path.ts";
import { SourceShared, WORD } from "../source/shared.ts";
import { Favour } from "../sync/favour.ts";
import type { ReturnPathTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

const RETURN_PATH_BUFFER_BYTES = 64 * 1024;

function run(task: ReturnPathTask): void {
  const { fd, stopFd, peer } = task;
  const guest = openSourceGuest(task.guest);
  const { blocks } = guest;
  const shared = new SourceShared(task.shared, blocks);
  const pages = guest.openPages();
  const channel = new Channel({ fd, stopFd, peer, bufferBytes: RETURN_PATH_BUFFER_BYTES });
  const server = new RequestServer(
    {
      shared,
      channel,
      makeWriter: () => new RamWriter(pages, openMovedRuns(shared.moved, blocks)),
      openChannel: (urgent) => new Channel({ fd: urgent, stopFd, peer, bufferBytes: 0 }),
    },
    blocks,
  );
  runReturnPath({
    channel,
    shared,
    blocks,
    server,
    favour: new Favour(shared.control, WORD.favour),
  });
}

serveThread(run);
