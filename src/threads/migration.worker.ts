/** The source's migration thread: connects, then runs the migration from end to end. */
import { monotonicNs } from "../../syscalls/process.ts";
import { Channel } from "../channel/channel.ts";
import { connectTo } from "../channel/connect.ts";
import { openSourceGuest } from "../guests/registry.ts";
import { migrate, MigrationError } from "../source/migrate.ts";
import { RamWriter } from "../source/ram-writer.ts";
import { SourceShared } from "../source/shared.ts";
import { errorRecord } from "../util/errors.ts";
import type { MigrationNews, MigrationResult, MigrationTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** How long a second connection to a peer that has accepted the first may take. */
const URGENT_PATIENCE_MS = 2000;

function run(task: MigrationTask, tell: (news: MigrationNews) => void): MigrationResult {
  const { route, stopFd, peer } = task;
  const guest = openSourceGuest(task.guest);
  const openChannel = (fd: number): Channel => new Channel({ fd, stopFd, peer, bufferBytes: 0 });
  try {
    const fd =
      route.kind === "descriptor"
        ? route.fd
        : connectTo(route.addresses, stopFd, route.patienceMs, () => tell({ kind: "waiting" }));
    tell({ kind: "connected", fd });
    const pages = guest.openPages();
    const outcome = migrate({
      guest,
      channel: openChannel(fd),
      shared: new SourceShared(task.shared, guest.blocks),
      settings: task.settings,
      makeWriter: () => new RamWriter(pages),
      connectUrgent:
        route.kind === "connect"
          ? () => connectTo(route.addresses, stopFd, Math.min(route.patienceMs, URGENT_PATIENCE_MS))
          : undefined,
      openChannel,
      emit: (event) => tell({ ...event, atNs: monotonicNs() }),
    });
    return { ok: true, outcome };
  } catch (error) {
    const place = error instanceof MigrationError ? error.place : "source";
    return { ok: false, place, error: errorRecord(error) };
  }
}

serveThread(run);
