/**
 * What an earlier migration of a QEMU's guest has left. QEMU itself takes a second `migrate` in
 * postmigrate, and `cont`, and would run a guest that runs elsewhere: so it is looked at what QEMU
 * says, and at what the journal does.
 */
import type { QmpClient } from "../../qmp/client.ts";
import { statusSchema } from "../../qmp/messages.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import type { JournalEntry } from "../../journal/entry.ts";
import { KEPT_REQUESTS } from "../../stream/hello.ts";
import { queryMigrate } from "./migration.ts";
import { DriveError } from "./drive-error.ts";

/** Statuses of query-migrate after which, or before any of which, the guest has not left. */
const STAYED: ReadonlySet<string> = new Set(["none", "failed", "cancelled"]);

/** What QEMU says of its guest. */
export interface GuestState {
  running: boolean;
  /** Its run state: "running", "paused", "postmigrate". */
  status: string;
  migration: MigrateReply;
}

export async function guestState(qmp: QmpClient): Promise<GuestState> {
  const { running, status } = await qmp.execute("query-status", {}, statusSchema);
  return { running, status, migration: await queryMigrate(qmp) };
}

/** Whether the peer of QEMU's last migration said that it only keeps the guest. */
export function keptByPeer({ status, ram }: MigrateReply): boolean {
  return status === "completed" && ram?.["postcopy-requests"] === KEPT_REQUESTS;
}

/** What may be done with the guest. */
export type Verdict =
  /** It is here and nowhere else. */
  | "here"
  /** Its peer only keeps it, and it was to go on here: that is still to be done. */
  | "continue"
  | DriveError;

/**
 * Judges by the last entry of the journal for this QEMU whose sender has ended, if there is one.
 * `again`: the operator knows better than the journal, but nobody knows better than QEMU.
 */
export function judge(
  state: GuestState,
  entry: JournalEntry | undefined,
  options: { keep: boolean; again: boolean },
): Verdict {
  const { running, migration } = state;
  const progress = migration.status ?? "none";
  if (!running) return judgeStanding(state, entry, options);
  if (STAYED.has(progress)) return entry?.state === "moved" ? refuseMoved(entry, options) : "here";
  if (progress === "completed") {
    const isHere = entry === undefined || keptByPeer(migration);
    return isHere ? "here" : refuseMoved(entry, options);
  }
  const whose = entry === undefined ? "" : `; ${senderOf(entry)} has ended, and QEMU goes on alone`;
  return new DriveError("QEMU_BUSY", `That QEMU is migrating already (${progress})${whose}`, {
    hint: "at its monitor: info migrate says how far it is, and migrate_cancel keeps the guest here",
  });
}

/** It was handed over, and QEMU does not show that it came back: somebody may know better. */
function refuseMoved(entry: JournalEntry, { again }: { again: boolean }): Verdict {
  if (again) return "here";
  const what = `The guest of this QEMU was handed to ${peerOf(entry)} at ${entry.since}`;
  return new DriveError("SPLIT_BRAIN", `${what}: it may run there, and is not sent again`, {
    hint: "if you are certain that it runs nowhere else: the same command with --again",
  });
}

function judgeStanding(
  { status, migration }: GuestState,
  entry: JournalEntry | undefined,
  { keep, again }: { keep: boolean; again: boolean },
): Verdict {
  const progress = migration.status ?? "none";
  const to = entry === undefined ? "elsewhere" : `to ${peerOf(entry)}, at ${entry.since}`;
  if (progress === "completed" && keptByPeer(migration)) {
    if (keep && entry?.keep === true) return "continue";
    return new DriveError("KEPT", `The guest was kept ${to}, and stands here (${status})`, {
      hint: "cont at the monitor lets it go on here",
    });
  }
  if (progress === "completed") {
    return new DriveError("MOVED", `The guest was moved ${to}: it stands here (${status})`, {
      hint:
        "it runs there, and must not cont here: end this QEMU; only where that dest kept it " +
        "(snapshot:) does cont let it go on",
    });
  }
  if (progress.startsWith("postcopy")) {
    return new DriveError("MOVING", `The guest is being moved ${to}: QEMU is ${progress}`, {
      hint: movingHint(progress),
    });
  }
  // A migration that failed or was cancelled here may have been too late for that.
  if (entry !== undefined && !again) return refuseMoved(entry, { again });
  return new DriveError("NOT_RUNNING", `The guest does not run: QEMU is in state ${status}`, {
    hint: "cont at the monitor lets it run",
  });
}

function movingHint(progress: string): string {
  if (progress === "postcopy-paused") {
    return (
      "the link broke. Have the destination wait for it (a QEMU, at its monitor: migrate_recover " +
      "tcp:HOST:PORT; a dest that was killed: the same with --resume), then at this monitor: migrate " +
      "-r tcp:HOST:PORT"
    );
  }
  if (progress.startsWith("postcopy-recover")) {
    return "QEMU takes the link up again: look at info migrate. One before 9.1 can hang in that";
  }
  return "QEMU goes on sending it by itself: wait until info migrate says completed";
}

function peerOf({ peer }: JournalEntry): string {
  return peer.kind === "address" ? peer.text : "a QEMU that was started for it";
}

function senderOf({ sender }: JournalEntry): string {
  return `the process ${sender.pid} that began it`;
}
