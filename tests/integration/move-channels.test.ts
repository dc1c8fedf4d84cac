/** Every way for two ends to reach each other. */
import { expect } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";

import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../syscalls/socket.ts";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { RAM_FLAG } from "../../src/stream/constants.ts";
import { FEATURE, FEATURES_OURS, answerValue, chosenValue } from "../../src/stream/hello.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import { bytesOf, ping } from "../helpers/hand-made-stream.ts";
import {
  SMALL_GUEST,
  allEvents,
  expectAgreement,
  expectMoved,
  move,
  pages,
  startDest,
  startSource,
} from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { PROJECT_ROOT, postcopyCommand } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { TextLog } from "../helpers/text-log.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
/** Pure postcopy with a slow push, so that there are requests to be answered. */
const WITH_REQUESTS = ["--switchover", "now", "--max-postcopy-bandwidth", "4MiB/s"] as const;
const BUSY = "stress:size=16MiB,rate=unlimited,discard=0,duration=100ms";

migrationTest("tcp over IPv6", async () => {
  const { source, dest } = await move({ listen: "tcp:[::1]:0" });
  expectMoved(source, dest, COUNT);
  const listening = dest.events.find((event) => event.event === "listening");
  expect(listening?.peer).toMatch(/^tcp:\[[\d:]+\]:\d+$/);
});

migrationTest("tcp to a host name", async () => {
  await using dest = await startDest({ listen: "tcp:localhost:0" });
  const port = dest.peer.slice(dest.peer.lastIndexOf(":") + 1);
  await using source = startSource({ to: `tcp:localhost:${port}` });
  expectMoved(await source.end(), await dest.end(), COUNT);
});

migrationTest("unix: with an urgent channel, the socket private and gone afterwards", async () => {
  await using directory = new TemporaryDirectory("unix");
  const path = directory.file("migration");
  await using dest = await startDest({ listen: `unix:${path}` });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await using source = startSource({ to: `unix:${path}`, guest: BUSY, flags: WITH_REQUESTS });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
  expect(destEnd.report.urgentChannel).toBe(true);
  expect(destEnd.report.pages.urgentNormal).toBeGreaterThan(0);
  expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
});

/** The command of a relay to or from the socket at `path`, for exec:. */
function relay(mode: "connect" | "listen", path: string): string {
  const fixture = join(import.meta.dir, "fixtures", "relay-fixture.ts");
  return `exec:${process.execPath} ${fixture} ${mode} ${path}`;
}

migrationTest("exec: at the source, requests answered on the main channel", async () => {
  await using directory = new TemporaryDirectory("exec");
  const path = directory.file("migration");
  await using dest = await startDest({ listen: `unix:${path}` });
  await using source = startSource({
    to: relay("connect", path),
    guest: BUSY,
    flags: WITH_REQUESTS,
  });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
  expect(destEnd.report.urgentChannel).toBe(false);
  expect(sourceEnd.report.requests.served).toBeGreaterThan(0);
});

migrationTest("exec: at the destination, which takes no second connection", async () => {
  await using directory = new TemporaryDirectory("exec");
  const path = directory.file("migration");
  await using dest = await startDest({ listen: relay("listen", path) });
  await using source = startSource({ to: `unix:${path}`, guest: BUSY, flags: WITH_REQUESTS });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
  expect(destEnd.report.urgentChannel).toBe(false);
  // It has said so: the source did not even try.
  expect(sourceEnd.events.filter(({ event }) => event === "warning")).toEqual([]);
});

migrationTest("without a second connection requests are answered on the first", async () => {
  await using directory = new TemporaryDirectory("unix");
  const path = directory.file("migration");
  await using server = await HandMadeDestination.open(path);
  await using source = startSource({
    to: server.peer,
    guest: SMALL_GUEST,
    flags: ["--switchover", "now", "--connect-timeout", "100ms"],
  });
  const peer = await server.accept();
  server.refuseMore();
  peer.answer({ kind: "pong", value: answerValue(FEATURES_OURS) });
  const { message } = await source.event("warning");
  expect(message).toStartWith("There is no urgent channel, requests wait for bulk data: Cannot");
  // Nor has a guest that runs other host pages than its own.
  const left = FEATURE.urgentChannel | FEATURE.repeats | FEATURE.smallPages | FEATURE.largePages;
  const chosen = bytesOf(ping(chosenValue(FEATURES_OURS & ~left)));
  await waitUntil(() => Buffer.from(peer.received).includes(chosen), "what was chosen");
  await source.phase("postcopy");
});

migrationTest("an older destination of ours is sent what it knows", async () => {
  await using directory = new TemporaryDirectory("unix");
  await using server = await HandMadeDestination.open(directory.file("migration"));
  const words = { to: server.peer, guest: SMALL_GUEST, flags: ["--switchover", "now"] };
  await using source = startSource(words);
  const peer = await server.accept();
  // All that there was before page runs.
  const known = FEATURE.running;
  peer.answer({ kind: "pong", value: answerValue(known) });
  const chosen = bytesOf(ping(chosenValue(known)));
  await waitUntil(() => Buffer.from(peer.received).includes(chosen), "what was chosen");
  await source.phase("postcopy");
  // A page of its own, of the block before: no other record of a page continues so.
  const single = Buffer.from([0x10, RAM_FLAG.page | RAM_FLAG.continue]);
  await waitUntil(() => Buffer.from(peer.received).includes(single), "single pages");
});

/** Starts postcopy with one more descriptor, which it knows as number 3. */
function startWithDescriptor(fd: number, words: readonly string[]) {
  const child = Bun.spawn(postcopyCommand(...words), {
    cwd: PROJECT_ROOT,
    stdio: ["ignore", "pipe", "pipe", fd],
  });
  closeDescriptor(fd);
  const stdout = new TextLog("stdout", child.stdout);
  const stderr = new TextLog("stderr", child.stderr);
  return { child, stdout, stderr };
}

async function reportOf(stdout: TextLog): Promise<unknown> {
  const events = await allEvents(stdout);
  return events.find((event) => event.event === "report")?.report;
}

migrationTest("fd: an inherited socket at both ends, one channel for everything", async () => {
  const [first, second] = makeSocketPair();
  const receive = ["dest", "--json", "--guest", "stress", "--listen", "fd:3"];
  const send = ["source", "--json", "--guest", BUSY, "--to", "fd:3", ...WITH_REQUESTS];
  const dest = startWithDescriptor(first, receive);
  const source = startWithDescriptor(second, send);
  try {
    const ends = await Promise.all([source.child.exited, dest.child.exited]);
    expect({ ends, dest: await dest.stderr.ended }).toMatchObject({ ends: [0, 0] });
    const sent = (await reportOf(source.stdout)) as SourceReport;
    const got = (await reportOf(dest.stdout)) as DestReport;
    expect(got.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
    expect(got.urgentChannel).toBe(false);
    expect(sent.requests.served).toBeGreaterThan(0);
    expectAgreement(sent, got, COUNT);
  } finally {
    source.child.kill("SIGKILL");
    dest.child.kill("SIGKILL");
  }
});

migrationTest("fd: a number that is not open is a mistake of the caller's", async () => {
  await using source = startSource({ to: "fd:77", guest: SMALL_GUEST });
  const { exitCode, error } = await source.end();
  expect(exitCode).toBe(2);
  expect(error).toMatchObject({ code: "BAD_PEER" });
  expect(error?.message).toContain("fd:77 is not an open descriptor");
});
