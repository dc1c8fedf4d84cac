/**
 * The sender is killed at every point around the commitment: what it has noted by then, and what the
 * next start says. Nothing that may run at a peer is sent there a second time by mistake.
 */
import { afterAll, expect } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { eventsSchema } from "../../src/report/events.ts";
import { identityPings, newIdentity, PONG_SAME_GUEST } from "../../src/stream/identity.ts";
import {
  writeReceivedBitmapEnd,
  writeReceivedBitmapStart,
} from "../../src/stream/received-bitmap.ts";
import { LONG_TEST_MS, waitUntil } from "../helpers/deadline.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import { bytesOf, command, ping } from "../helpers/hand-made-stream.ts";
import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { runPostcopy } from "../helpers/postcopy-run.ts";
import { answerAsQemu } from "../helpers/stuck-source.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const journalTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
/** It asks for a page now and then, so that much is missing when its sender is killed. */
const CALM = "stress:size=16MiB,rate=1MiB/s,duration=100ms";
const SLOW = ["--max-postcopy-bandwidth", "256KiB/s"] as const;

/** The entries of a journal. */
function entriesIn(directory: string): Record<string, unknown>[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(".json"))
    .map((name) => {
      return JSON.parse(readFileSync(join(directory, name), "utf8")) as Record<string, unknown>;
    });
}

async function waitForEntry(directory: string): Promise<void> {
  await waitUntil(() => entriesIn(directory).length > 0, "an entry in the journal");
}

async function kill(source: SourceRole): Promise<void> {
  source.program.kill("SIGKILL");
  await source.program.finish();
}

const place = new TemporaryDirectory("journal");
afterAll(() => place[Symbol.asyncDispose](), LONG_TEST_MS);

/** A stress guest in a snapshot, made once. */
async function keepStress(): Promise<string> {
  const guest = `snapshot:${place.file("guest")}`;
  if (existsSync(place.file("guest"))) return guest;
  await using keeper = await startDest({ guest });
  await using source = startSource({
    to: keeper.peer,
    guest: CALM,
    flags: ["--switchover", "now"],
  });
  await Promise.all([source.end(), keeper.end()]);
  return guest;
}

journalTest("a sender killed in postcopy: not sent again, but the rest", async () => {
  await using directory = new TemporaryDirectory("journal");
  const guest = await keepStress();
  const journal = directory.file("journal");
  const flags = ["--journal", journal];
  await using dest = await startDest();
  {
    await using source = startSource({ guest, to: dest.peer, flags: [...flags, ...SLOW] });
    await dest.event("running");
    expect(entriesIn(journal)).toMatchObject([{ state: "committing", keep: false }]);
    await kill(source);
  }
  const [entry] = entriesIn(journal);
  await dest.phase("paused");
  await using again = startSource({ guest, to: dest.peer, flags });
  const refused = await again.end();
  expect(refused).toMatchObject({ exitCode: 1, error: { code: "SPLIT_BRAIN" } });
  expect(refused.error?.message).toContain(
    `was handed to ${dest.peer} at ${String(entry?.["since"])}`,
  );
  expect(refused.error?.hints.join()).toContain(`--to ${dest.peer} --journal ${journal} --resume`);
  expect(entriesIn(journal)).toEqual([entry ?? {}]);
  const listed = await runPostcopy(["journal", ...flags]);
  expect(listed.events.map((each) => eventsSchema.parse(each))).toMatchObject([
    { event: "entry", state: "committing", peer: dest.peer, sending: false },
  ]);
  expect(listed.stderr).toContain(`was handed to ${dest.peer} at ${String(entry?.["since"])}`);
  {
    // Nobody was reached: what is noted is still all that happened.
    const nowhere = `unix:${directory.file("nobody")}`;
    const rest = [...flags, "--resume", "--connect-timeout", "0s", "--recover-timeout", "0s"];
    await using nobody = startSource({ guest, to: nowhere, flags: rest });
    expect((await nobody.end()).error?.code).toBe("NOT_RESUMED");
    expect(entriesIn(journal)).toEqual([entry ?? {}]);
    // Who waits for somebody has nothing to lose.
    await using waiting = startSource({ guest, to: nowhere, flags: [...flags, "--resume"] });
    const { message } = await waiting.event("warning", ({ code }) => code === "NOBODY_THERE");
    expect(message).toStartWith(`Nobody listens at ${nowhere} yet; trying for 5m10s`);
    waiting.program.kill("SIGINT");
    const ended = await waiting.end();
    expect(ended).toMatchObject({ exitCode: 130, report: { outcome: "cancelled" } });
    expect(ended.stderr).toContain("what the destination has stays there: Stopped on request");
    expect(ended.stderr).not.toContain("The link to");
    expect(entriesIn(journal)).toEqual([entry ?? {}]);
  }
  {
    // Killed again, in the middle of the rest: what it took the place of is noted as its own.
    await using rest = startSource({
      guest,
      to: dest.peer,
      flags: [...flags, "--resume", ...SLOW],
    });
    // It begins where the first one had come to.
    await rest.event("progress", ({ arrivedPages }) => arrivedPages > 0);
    await kill(rest);
    const noted = entriesIn(journal);
    expect(noted).toMatchObject([{ state: "committing", since: entry?.["since"] }]);
    expect(noted).not.toEqual([entry ?? {}]);
  }
  await using rest = startSource({ guest, to: dest.peer, flags: [...flags, "--resume"] });
  const [sent, got] = await Promise.all([rest.end(), dest.end()]);
  expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
  expect(got.report.audit?.pagesWrong).toBe(0);
  expect(entriesIn(journal)).toEqual([]);
});

/** A source that is killed with its entry noted: the peer never answers its hello, so no package is sent. */
async function killBeforePackage(guest: string, path: string, journal: string): Promise<void> {
  await using server = await HandMadeDestination.open(path);
  await using source = startSource({ guest, to: `unix:${path}`, flags: ["--journal", journal] });
  await server.accept();
  await waitForEntry(journal);
  await kill(source);
}

journalTest(
  "a sender killed before the package: told of all the same, also if damaged; --again sends",
  async () => {
    await using directory = new TemporaryDirectory("journal");
    const guest = await keepStress();
    const journal = directory.file("journal");
    const flags = ["--journal", journal];
    const path = directory.file("peer");
    const to = `unix:${path}`;
    await killBeforePackage(guest, path, journal);
    await using refused = startSource({ guest, to, flags });
    expect((await refused.end()).error?.code).toBe("SPLIT_BRAIN");
    // One that cannot be read says no less, whatever the operator thinks.
    const [name = ""] = readdirSync(journal);
    const entry = readFileSync(join(journal, name));
    writeFileSync(join(journal, name), "\0\0\0\0");
    await using damaged = startSource({ guest, to, flags: [...flags, "--again"] });
    const { error } = await damaged.end();
    expect(error?.code).toBe("BAD_JOURNAL");
    expect(error?.message).toContain(name);
    const forget = ["journal", "--journal", journal, "--forget", name.replace(".json", "")];
    expect(error?.hints.join()).toEndWith(forget.join(" "));
    const forgotten = await runPostcopy(forget);
    expect(forgotten).toMatchObject({ exitCode: 0, events: [{ state: "damaged", guest: null }] });
    expect(entriesIn(journal)).toEqual([]);
    writeFileSync(join(journal, name), entry);
    {
      // Another copy, of which no more is known: both stay noted.
      await using server = await HandMadeDestination.open(path);
      await using source = startSource({ guest, to, flags: [...flags, "--again"] });
      await server.accept();
      await waitUntil(() => entriesIn(journal).length > 1, "an entry of the copy");
      await kill(source);
      expect(readFileSync(join(journal, name))).toEqual(entry);
    }
    await using dest = await startDest({ listen: to });
    await using again = startSource({ guest, to, flags: [...flags, "--again"] });
    expect((await Promise.all([again.end(), dest.end()])).map(({ exitCode }) => exitCode)).toEqual([
      0, 0,
    ]);
    expect(entriesIn(journal)).toEqual([]);
  },
);

/** The answer to RECV_BITMAP of a destination that has nothing of the guest. */
const EMPTY_BITMAP = bytesOf(
  (writer) => writeReceivedBitmapStart(writer, "stress.ram", COUNT),
  (writer) => writer.raw(new Uint8Array(COUNT / 8)),
  writeReceivedBitmapEnd,
);

journalTest("a peer whose guest is no more when the rest comes: nothing stays noted", async () => {
  await using directory = new TemporaryDirectory("journal");
  const guest = await keepStress();
  const journal = directory.file("journal");
  const flags = ["--journal", journal];
  const path = directory.file("peer");
  const to = `unix:${path}`;
  await killBeforePackage(guest, path, journal);
  await using server = await HandMadeDestination.open(path);
  await using rest = startSource({ guest, to, flags: [...flags, "--resume"] });
  const peer = await server.accept();
  peer.send(EMPTY_BITMAP);
  const asked = bytesOf(
    command({ kind: "recvBitmap", block: "stress.ram" }),
    ...identityPings(newIdentity()).map(ping),
  ).length;
  await waitUntil(() => peer.received.length >= asked, "which guest it is");
  peer.answer({ kind: "pong", value: PONG_SAME_GUEST });
  const said = asked + bytesOf(command({ kind: "postcopyResume" })).length;
  await waitUntil(() => peer.received.length === said, "RESUME");
  peer.answer({ kind: "shut", status: 2 });
  const end = await rest.end();
  expect(end).toMatchObject({ exitCode: 4, error: { code: "GUEST_GONE" } });
  expect(entriesIn(journal)).toEqual([]);
});

journalTest("a live guest: noted before it stops, and settled when it stays", async () => {
  await using directory = new TemporaryDirectory("journal");
  const journal = directory.file("journal");
  await using server = await HandMadeDestination.open();
  const flags = ["--switchover", "now", "--journal", journal];
  await using source = startSource({ to: server.peer, flags });
  const peer = await server.accept();
  await waitForEntry(journal);
  // It waits for the answer to its hello, and the guest still runs.
  expect(source.program.stdout.text).not.toContain('"event":"switchover"');
  await answerAsQemu(peer);
  await source.phase("postcopy");
  expect(entriesIn(journal)).toMatchObject([{ state: "committing", guest: { kind: "stress" } }]);
  peer.answer({ kind: "shut", status: 1 });
  expect((await source.end()).stayed).toMatchObject({ pagesWrong: 0 });
  expect(entriesIn(journal)).toEqual([]);
});
