/** What is made of a QEMU whose guest may have left: by what it says, and by the journal. */
import { expect, test } from "bun:test";

import type { JournalEntry } from "../../../src/journal/entry.ts";
import { newEntry } from "../../../src/journal/entry.ts";
import { judge, keptByPeer } from "../../../src/guests/qemu/earlier-move.ts";
import { KEPT_REQUESTS } from "../../../src/stream/hello.ts";
import type { MigrateReply } from "../../../src/qmp/messages.ts";
import { ownProcess } from "../../../src/util/processes.ts";

const COMMITTING: JournalEntry = newEntry({
  guest: { kind: "qemu", process: ownProcess(), socket: "/monitor", uuid: "" },
  peer: { kind: "address", text: "tcp:127.0.0.1:1" },
  keep: false,
  sender: ownProcess(),
});
const MOVED: JournalEntry = { ...COMMITTING, state: "moved" };
const TO_KEEP: JournalEntry = { ...COMMITTING, keep: true };

function reply(status: string | undefined, requests = 0): MigrateReply {
  const zeros = { transferred: 0, remaining: 0, total: 0, duplicate: 0, normal: 0, mbps: 0 };
  const more = { "dirty-pages-rate": 0, "dirty-sync-count": 0, "page-size": 4096 };
  const bytes = { "precopy-bytes": 0, "downtime-bytes": 0, "postcopy-bytes": 0 };
  const ram = { ...zeros, ...more, ...bytes, "postcopy-requests": requests };
  return status === undefined ? {} : { status, ram };
}

const RUNS = { running: true, status: "running" };
const STANDS = { running: false, status: "postmigrate" };
const NONE = { keep: false, again: false };
const AGAIN = { keep: false, again: true };
const KEEP = { keep: true, again: false };

const KEPT = reply("completed", KEPT_REQUESTS);

/** QEMU's state, the journal's entry, the flags, and what follows. */
const CASES: [object, MigrateReply, JournalEntry | undefined, typeof NONE, string][] = [
  // It never left.
  [RUNS, reply(undefined), undefined, NONE, "here"],
  [RUNS, reply(undefined), COMMITTING, NONE, "here"],
  [RUNS, reply("failed"), COMMITTING, NONE, "here"],
  [RUNS, reply("cancelled"), COMMITTING, NONE, "here"],
  // It left, and somebody lets it run here.
  [RUNS, reply("failed"), MOVED, NONE, "SPLIT_BRAIN"],
  [RUNS, reply("completed"), COMMITTING, NONE, "SPLIT_BRAIN"],
  [RUNS, reply("completed"), MOVED, NONE, "SPLIT_BRAIN"],
  [RUNS, reply("completed"), MOVED, AGAIN, "here"],
  [RUNS, reply("completed"), undefined, NONE, "here"],
  // The peer only keeps it.
  [RUNS, KEPT, TO_KEEP, NONE, "here"],
  [RUNS, KEPT, COMMITTING, NONE, "here"],
  // Its driver was killed, and QEMU goes on.
  [RUNS, reply("active"), COMMITTING, NONE, "QEMU_BUSY"],
  [RUNS, reply("active"), undefined, AGAIN, "QEMU_BUSY"],
  [STANDS, reply("postcopy-active"), COMMITTING, NONE, "MOVING"],
  [STANDS, reply("postcopy-paused"), undefined, AGAIN, "MOVING"],
  // What QEMU says needs no entry, and nobody knows better.
  [STANDS, reply("completed"), undefined, NONE, "MOVED"],
  [STANDS, reply("completed"), MOVED, AGAIN, "MOVED"],
  [STANDS, KEPT, undefined, KEEP, "KEPT"],
  [STANDS, KEPT, TO_KEEP, NONE, "KEPT"],
  [STANDS, KEPT, COMMITTING, KEEP, "KEPT"],
  [STANDS, KEPT, TO_KEEP, KEEP, "continue"],
  [STANDS, reply("completed", 5), TO_KEEP, KEEP, "MOVED"],
  // It is never advised to let a guest run that was handed over.
  [STANDS, reply("failed"), MOVED, NONE, "SPLIT_BRAIN"],
  [STANDS, reply("failed"), COMMITTING, NONE, "SPLIT_BRAIN"],
  [STANDS, reply("cancelled"), COMMITTING, NONE, "SPLIT_BRAIN"],
  [STANDS, reply("cancelled"), TO_KEEP, KEEP, "SPLIT_BRAIN"],
  [STANDS, reply("cancelled"), COMMITTING, AGAIN, "NOT_RUNNING"],
  [{ running: false, status: "paused" }, reply(undefined), undefined, NONE, "NOT_RUNNING"],
];

for (const [state, migration, entry, options, expected] of CASES) {
  const { running } = state as typeof RUNS;
  const flags = options.again ? " --again" : options.keep ? " --keep" : "";
  const noted = entry === undefined ? "nothing" : entry.keep ? "to go on" : entry.state;
  const requests = migration.ram?.["postcopy-requests"] ?? 0;
  const what = `${running ? "runs" : "stands"}, ${migration.status ?? "none"} (${requests})`;
  test(`${what}, noted ${noted}${flags}: ${expected}`, () => {
    const verdict = judge({ ...(state as typeof RUNS), migration }, entry, options);
    expect(typeof verdict === "string" ? verdict : verdict.code).toBe(expected);
  });
}

test("one that stands and was handed over: it is said to whom and when, and not to let it run", () => {
  const verdict = judge({ ...STANDS, migration: reply("failed") }, MOVED, NONE);
  if (typeof verdict === "string") throw new Error("it was not refused");
  expect(verdict.message).toContain(`was handed to tcp:127.0.0.1:1 at ${MOVED.since}`);
  expect(verdict.hint).not.toContain("cont");
});

test("a peer that keeps the guest says so by its requests, after all of it has come", () => {
  expect(keptByPeer(KEPT)).toBe(true);
  expect(keptByPeer(reply("completed", 1))).toBe(false);
  expect(keptByPeer(reply("postcopy-active", KEPT_REQUESTS))).toBe(false);
});
