/** The source's migration thread: connects, then runs the migration from end to end. */
import { monotonicNs } from "../../syscalls/process.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { Channel, StoppedError } from "../channel/channel.ts";
import { tuneConnection } from "../channel/tune.ts";
import { connectTo } from "../channel/connect.ts";
import { awaitJoined } from "../channel/joined.ts";
import { openSourceGuest } from "../guests/registry.ts";
import { openMovedRuns } from "../report/moved-pages.ts";
import { writeRecord } from "../journal/record.ts";
import { migrate, MigrationError, resumeHint } from "../source/migrate.ts";
import { resumeMigration } from "../source/resume.ts";
import { RamWriter } from "../source/ram-writer.ts";
import { OTHER_GUEST } from "../source/refusal.ts";
import { SourceShared } from "../source/shared.ts";
import { errorRecord, PostcopyError } from "../util/errors.ts";
import type { MigrationNews, MigrationResult, MigrationTask, Route } from "./tasks.ts";
import { givePushWay } from "./push-priority.ts";
import { serveThread } from "./thread.ts";

/** How long a second connection to a peer that has accepted the first may take. */
const URGENT_PATIENCE_MS = 2000;
/** How much longer than its patience a bridge may take to say something: it has limits of its own. */
const BRIDGE_LIMIT_MS = 60_000;

type ConnectRoute = Extract<Route, { kind: "connect" }>;

function urgentPatienceMs({ patienceMs }: ConnectRoute): number {
  return Math.min(patienceMs, URGENT_PATIENCE_MS);
}

/** A connection to the destination, or to the bridge that has made one. */
function connect(
  { stopFd, peer, settings: { linkTimeoutMs } }: MigrationTask,
  { addresses, patienceMs, joined = false }: ConnectRoute,
  waiting: () => void,
): number {
  const fd = connectTo({ addresses, patienceMs, linkTimeoutMs }, stopFd, waiting);
  if (!joined) return fd;
  try {
    awaitJoined(fd, stopFd, peer, patienceMs + BRIDGE_LIMIT_MS);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function run(task: MigrationTask, tell: (news: MigrationNews) => void): MigrationResult {
  const { route, stopFd, peer } = task;
  const { linkTimeoutMs } = task.settings;
  const guest = openSourceGuest(task.guest);
  const openChannel = (fd: number): Channel => new Channel({ fd, stopFd, peer, bufferBytes: 0 });
  try {
    const waiting = (): void => tell({ kind: "waiting" });
    if (route.kind === "descriptor") tuneConnection(route.fd, linkTimeoutMs);
    const fd = route.kind === "descriptor" ? route.fd : connect(task, route, waiting);
    tell({ kind: "connected", fd });
    const pages = guest.openPages();
    const shared = new SourceShared(task.shared, guest.blocks);
    const act = task.resume ? resumeMigration : migrate;
    const outcome = act({
      guest,
      identity: task.identity,
      channel: openChannel(fd),
      shared,
      settings: task.settings,
      replay: task.replay,
      watch: task.watch,
      makeWriter: () => new RamWriter(pages, openMovedRuns(shared.moved, guest.blocks)),
      connectFurther:
        route.kind === "connect"
          ? () => connect(task, { ...route, patienceMs: urgentPatienceMs(route) }, () => {})
          : undefined,
      encrypted: route.kind === "connect" && route.joined === true,
      openChannel,
      startPush: (further) => tell({ kind: "push channel", fd: further }),
      giveWay: givePushWay,
      noteHandOver: () => {
        if (task.record !== null) writeRecord(task.record, "committing");
      },
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
    // Whoever waits for another guest is not the one to go on with.
    const isForAnother = error instanceof PostcopyError && error.code === OTHER_GUEST;
    const details = isForAnother ? {} : { hint: resumeHint(guest) };
    const failure = new PostcopyError("NOT_RESUMED", what, { cause: error, ...details });
    const paused = !(error instanceof StoppedError);
    return { ok: false, place: "destination", paused, error: errorRecord(failure) };
  }
}

serveThread(run);
