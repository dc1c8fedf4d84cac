/** The source's migration thread: connects, then runs the migration from end to end. */
import { monotonicNs } from "../../syscalls/process.ts";
import { Channel, StoppedError } from "../channel/channel.ts";
import { connectTo } from "../channel/connect.ts";
import { openSourceGuest } from "../guests/registry.ts";
import { migrate, MigrationError, RESUME_HINT } from "../source/migrate.ts";
import { resumeMigration } from "../source/resume.ts";
import { RamWriter } from "../source/ram-writer.ts";
import { SourceShared } from "../source/shared.ts";
import { errorRecord, PostcopyError } from "../util/errors.ts";
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
    const act = task.resume ? resumeMigration : migrate;
    const outcome = act({
      guest,
      channel: openChannel(fd),
      shared: new SourceShared(task.shared, guest.blocks),
      settings: task.settings,
      replay: task.replay,
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
    if (error instanceof MigrationError) {
      const { place, paused } = error;
      return { ok: false, place, paused, error: errorRecord(error) };
    }
    // There was no connection.
    if (!task.resume) {
      return { ok: false, place: "source", paused: false, error: errorRecord(error) };
    }
    const what = "The rest of the guest was not sent; what the destination has stays there";
    const failure = new PostcopyError("NOT_RESUMED", what, { cause: error, hint: RESUME_HINT });
    const paused = !(error instanceof StoppedError);
    return { ok: false, place: "destination", paused, error: errorRecord(failure) };
  }
}

serveThread(run);
