/**
 * The other end goes away, at every point of a migration. What is left says where the guest is, and
 * until it may run at the destination it goes on at the source, whole.
 */
import { expect } from "bun:test";

import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { DeafDestination } from "../helpers/deaf-destination.ts";
import { HandMadeDestination, HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  BEFORE_PACKAGE,
  bytesOf,
  opening,
  openReturnPath,
  packaged,
  ping,
  ramPart,
  zeroPages,
} from "../helpers/hand-made-stream.ts";
import { NO_RECOVERY, pages, startDest, startSource } from "../helpers/migration.ts";
import type { RoleEnd } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { answerAsQemu, STUCK_GUEST, STUCK_PAGES, waitUntilStuck } from "../helpers/stuck-source.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const SLOW_PRECOPY = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"] as const;
const SLOW_POSTCOPY = ["--switchover", "now", "--max-postcopy-bandwidth", "256KiB/s"] as const;
/** A guest that hardly asks for anything: sent so slowly, it is far from whole. */
const CALM = "stress:size=16MiB,rate=1MiB/s,duration=100ms";

/** The source's guest went on there, and all of it is right. */
function expectStayed(source: RoleEnd<SourceReport>, count = COUNT): void {
  expect(source).toMatchObject({
    exitCode: 1,
    error: { code: "MIGRATION_FAILED" },
    stayed: { pagesChecked: count, pagesWrong: 0 },
    report: { outcome: "failed", error: { code: "MIGRATION_FAILED" } },
  });
  expect(source.error?.message).toStartWith("The migration failed; the guest goes on here: ");
  // It does not only stay, it runs.
  expect(source.stayed?.operations).toBeGreaterThan(0);
  expect(source.stderr).toContain(`operations since, checked ${count} pages, 0 wrong`);
}

/** The source's guest may run at the destination: it does not run here any more. */
function expectGone(source: RoleEnd<SourceReport>): void {
  expect(source).toMatchObject({
    exitCode: 1,
    stayed: undefined,
    report: { outcome: "failed", phase: "postcopy" },
  });
  expect(source.error?.message).toContain("the guest is at the destination");
  expect(source.error?.message).toMatch(/\d of its pages are only here/);
}

/** The guest never ran here. */
function expectNotStarted(dest: RoleEnd<DestReport>, code: string): void {
  expect(dest).toMatchObject({
    exitCode: 1,
    error: { code },
    report: { outcome: "failed", audit: null },
  });
  expect(dest.stderr).toContain("The guest did not start here: it is the source's to go on with");
}

migrationTest("source: the destination hangs up at once", async () => {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ to: server.peer });
  (await server.accept()).close();
  expectStayed(await source.end());
});

migrationTest("source: the destination is killed in precopy", async () => {
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, flags: SLOW_PRECOPY });
  await dest.event("guest");
  dest.program.kill("SIGKILL");
  expectStayed(await source.end());
});

migrationTest("source: the destination refuses in precopy and is believed at once", async () => {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ to: server.peer, flags: SLOW_PRECOPY });
  const peer = await server.accept();
  await source.phase("precopy");
  peer.answer({ kind: "shut", status: 1 });
  const end = await source.end();
  expectStayed(end);
  expect(end.error?.message).toContain("The destination refused the guest");
  // The first round alone takes three seconds.
  expect(end.report.rounds).toEqual([]);
});

migrationTest("source: the destination hangs up in the middle of the package", async () => {
  await using directory = new TemporaryDirectory("package");
  using server = new DeafDestination(directory.file("migration"));
  await using source = startSource({
    to: server.peer,
    guest: STUCK_GUEST,
    flags: ["--switchover", "now"],
  });
  await server.accept();
  server.answerAsQemu();
  await waitUntilStuck(source);
  server.hangUp();
  const end = await source.end();
  expectStayed(end, STUCK_PAGES);
  expect(end.report).toMatchObject({ phase: "device", switchover: { kind: "postcopy" } });
});

migrationTest(
  "source: the destination refuses after the package: the guest comes back",
  async () => {
    await using server = await HandMadeDestination.open();
    await using source = startSource({ to: server.peer, flags: SLOW_POSTCOPY });
    const peer = await server.accept();
    await answerAsQemu(peer);
    await source.phase("postcopy");
    peer.answer({ kind: "shut", status: 1 });
    const end = await source.end();
    expectStayed(end);
    expect(end.error?.message).toContain("The destination refused the guest");
  },
);

migrationTest("source: a refusal is not believed once the device state is loaded", async () => {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ to: server.peer, flags: SLOW_POSTCOPY });
  const peer = await server.accept();
  await answerAsQemu(peer);
  await source.phase("postcopy");
  // The guest runs there from here on, whatever is said next.
  peer.answer({ kind: "pong", value: 3 });
  peer.answer({ kind: "shut", status: 1 });
  expectGone(await source.end());
});

migrationTest("source: the destination is killed in postcopy", async () => {
  await using dest = await startDest();
  await using source = startSource({
    ...{ to: dest.peer, guest: CALM },
    flags: [...SLOW_POSTCOPY, ...NO_RECOVERY],
  });
  await dest.event("running");
  dest.program.kill("SIGKILL");
  const end = await source.end();
  expectGone(end);
  expect(end.stderr).toContain("Migration failed in phase postcopy");
});

migrationTest("dest: a source that hangs up before it says anything is not a source", async () => {
  await using dest = await startDest();
  await using caller = await HandMadePeer.connect(dest.peer);
  caller.close();
  await using other = await HandMadePeer.connect(dest.peer);
  other.send(opening(), openReturnPath, ping(7));
  await other.message(({ kind }) => kind === "pong");
  expect(dest.program.running).toBe(true);
});

migrationTest("dest: the source hangs up behind the opening", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(opening(), openReturnPath, ping(7));
  await peer.message(({ kind }) => kind === "pong");
  peer.close();
  const end = await dest.end();
  expectNotStarted(end, "PEER_CLOSED");
  expect(end.error?.message).toMatch(/^The connection was closed by tcp:127\.0\.0\.1:\d+$/);
});

migrationTest("dest: the source is killed in precopy", async () => {
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, flags: SLOW_PRECOPY });
  await dest.event("guest");
  source.program.kill("SIGKILL");
  expectNotStarted(await dest.end(), "PEER_CLOSED");
});

migrationTest("dest: the source hangs up in the middle of the package", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(...BEFORE_PACKAGE, bytesOf(packaged()).subarray(0, 100));
  await dest.phase("device");
  peer.close();
  expectNotStarted(await dest.end(), "PEER_CLOSED");
});

migrationTest("dest: the source hangs up while the device state waits for a page", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(...BEFORE_PACKAGE, packaged());
  await peer.message(({ kind }) => kind === "pageRequest");
  peer.endWriting();
  // The device state never was loaded, so the source is told that it may go on with the guest.
  const refusal = await peer.message(({ kind }) => kind === "shut");
  expect(refusal).toEqual({ kind: "shut", status: 1 });
  expectNotStarted(await dest.end(), "PEER_CLOSED");
});

/** The guest ran at the destination, and cannot go on. */
function expectLost(dest: RoleEnd<DestReport>): void {
  expect(dest).toMatchObject({
    exitCode: 1,
    error: { code: "PEER_CLOSED" },
    report: { outcome: "failed", phase: "postcopy", audit: null },
  });
  const lost = /The guest ran here and ends with this process: [\d,]+ of its pages never came/;
  expect(dest.stderr).toMatch(lost);
  const warning = dest.events.find((event) => event.event === "warning");
  expect(warning).toMatchObject({ code: "GUEST_LOST" });
}

migrationTest("dest: the source is killed in postcopy", async () => {
  await using dest = await startDest({ flags: NO_RECOVERY });
  await using source = startSource({ to: dest.peer, guest: CALM, flags: SLOW_POSTCOPY });
  await dest.event("running");
  source.program.kill("SIGKILL");
  expectLost(await dest.end());
});

migrationTest("dest: what breaks once the guest runs is never told as a refusal", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(...BEFORE_PACKAGE, packaged(), ramPart(zeroPages(0, 16)));
  await dest.event("running");
  // No section begins so.
  peer.send(Uint8Array.of(0xee));
  const { exitCode, error } = await dest.end();
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "UNKNOWN_SECTION" });
  await peer.otherEnd();
  // A QEMU 11 would run its guest again at a status that is not 0.
  expect(peer.messages.filter(({ kind }) => kind === "shut")).toEqual([]);
});

migrationTest("dest: a source that hangs up when every page is there is not needed", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  // All that loading the device state needs, which is all of this guest.
  peer.send(...BEFORE_PACKAGE, packaged(), ramPart(zeroPages(0, 14)));
  await peer.message(({ kind }) => kind === "pageRequest");
  peer.send(ramPart(zeroPages(14, 16)));
  await dest.phase("postcopy");
  peer.close();
  expect(await dest.end()).toMatchObject({ exitCode: 0, report: { outcome: "completed" } });
});
