/**
 * Ctrl-C at the source, in every phase: until the guest may run at the destination it goes on here;
 * afterwards the operator is told what is lost, and has to press again.
 */
import { expect } from "bun:test";

import type { SourceReport } from "../../src/report/report.ts";
import { DeafDestination } from "../helpers/deaf-destination.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import { Link } from "../helpers/link.ts";
import { expectMoved, NO_RECOVERY, pages, startDest, startSource } from "../helpers/migration.ts";
import type { RoleEnd, SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { STUCK_GUEST, STUCK_PAGES, waitUntilStuck } from "../helpers/stuck-source.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const interruptTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const SLOW_PRECOPY = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"] as const;
/** A guest that hardly asks for anything, and is sent so slowly that it is far from whole. */
const CALM = "stress:size=16MiB,rate=1MiB/s,duration=100ms";
const SLOW_POSTCOPY = ["--switchover", "now", "--max-postcopy-bandwidth", "256KiB/s"] as const;
/**
 * Within this the source must have given up. A second is promised; a test machine may be busy, but what
 * waits for a link or a peer waits for longer.
 */
const HONOURED_MS = 20_000;

/** Interrupts a source; its guest must go on here, whole. */
async function expectInterrupted(
  source: SourceRole,
  signal: "SIGINT" | "SIGTERM" = "SIGINT",
  count = COUNT,
): Promise<RoleEnd<SourceReport>> {
  source.program.kill(signal);
  await source.program.stderr.waitForLine(/^The guest goes on here$/, { limitMs: HONOURED_MS });
  const end = await source.end();
  expect(end).toMatchObject({
    exitCode: signal === "SIGINT" ? 130 : 143,
    error: undefined,
    stayed: { pagesChecked: count, pagesWrong: 0 },
    report: { outcome: "cancelled", error: { code: "MIGRATION_FAILED" } },
  });
  expect(end.report.error?.message).toEndWith("Stopped on request");
  // It does not only stay, it runs.
  expect(end.stayed?.operations).toBeGreaterThan(0);
  return end;
}

interruptTest("while its guest is made: it ends at once, nothing is lost yet", async () => {
  await using source = startSource({ to: "tcp:127.0.0.1:1", guest: "stress:size=1GiB,workers=1" });
  await source.program.stderr.waitForLine(/^Filling the memory/);
  source.program.kill("SIGINT");
  const { exitCode, events } = await source.end();
  expect({ exitCode, events }).toEqual({ exitCode: 130, events: [] });
});

interruptTest("while nobody answers", async () => {
  await using directory = new TemporaryDirectory("nobody");
  const to = `unix:${directory.file("nobody")}`;
  await using source = startSource({ to, flags: ["--connect-timeout", "60s"] });
  // The first progress event comes when it has begun to try.
  await source.event("progress");
  source.program.kill("SIGINT");
  await source.program.stderr.waitForLine(/^The guest goes on here$/, { limitMs: HONOURED_MS });
  const { exitCode, stayed } = await source.end();
  expect({ exitCode, stayed }).toMatchObject({ exitCode: 130, stayed: { pagesWrong: 0 } });
});

interruptTest("while it waits for the destination's first answer", async () => {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ to: server.peer, flags: ["--switchover", "now"] });
  await server.accept();
  await source.event("guest");
  await expectInterrupted(source);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  interruptTest(`in precopy (${signal})`, async () => {
    await using dest = await startDest();
    await using source = startSource({ to: dest.peer, flags: SLOW_PRECOPY });
    await source.phase("precopy");
    const end = await expectInterrupted(source, signal);
    expect(end.report.phase).toBe("precopy");
    const destEnd = await dest.end();
    expect(destEnd).toMatchObject({ exitCode: 1, error: { code: "PEER_CLOSED" } });
    expect(destEnd.stderr).toContain("The guest did not start here");
  });
}

interruptTest("in precopy, while the destination takes nothing", async () => {
  await using directory = new TemporaryDirectory("deaf");
  using server = new DeafDestination(directory.file("migration"));
  await using source = startSource({ to: server.peer });
  await server.accept();
  await source.phase("precopy");
  await expectInterrupted(source);
});

interruptTest("in the middle of the package", async () => {
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
  const end = await expectInterrupted(source, "SIGINT", STUCK_PAGES);
  expect(end.report.phase).toBe("device");
});

interruptTest("while the guest that stayed is looked after: the second press ends it", async () => {
  await using server = await HandMadeDestination.open();
  await using source = startSource({
    to: server.peer,
    guest: "stress:size=16MiB,duration=1h",
    flags: ["--switchover", "now"],
  });
  await server.accept();
  await source.event("guest");
  source.program.kill("SIGINT");
  await source.program.stderr.waitForLine(/^The guest goes on here$/, { limitMs: HONOURED_MS });
  source.program.kill("SIGINT");
  expect((await source.end()).exitCode).toBe(130);
});

/** What the first press says once the guest is at the destination. */
const WARNING =
  /The guest runs at the destination already; ([\d,]+) of its pages are only here, and it is lost without them\. Interrupt once more to give it up\./;

interruptTest("in postcopy: the first press warns, and the guest arrives", async () => {
  await using dest = await startDest();
  await using link = await Link.start(dest.peer);
  link.holdBehind(2 ** 20);
  await using source = startSource({ to: link.uri, flags: ["--switchover", "now"] });
  await source.phase("postcopy");
  source.program.kill("SIGINT");
  const [, owed = ""] = await source.program.stderr.waitForLine(WARNING, { limitMs: HONOURED_MS });
  link.carryOn();
  expect(Number(owed.replaceAll(",", ""))).toBeGreaterThan(0);
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
});

interruptTest("in postcopy: the second press gives the guest up", async () => {
  await using dest = await startDest({ flags: NO_RECOVERY });
  await using source = startSource({ to: dest.peer, guest: CALM, flags: SLOW_POSTCOPY });
  await dest.event("running");
  source.program.kill("SIGINT");
  await source.program.stderr.waitForLine(WARNING, { limitMs: HONOURED_MS });
  source.program.kill("SIGINT");
  const end = await source.end();
  expect(end).toMatchObject({ exitCode: 130, stayed: undefined, report: { outcome: "abandoned" } });
  expect(end.report.error?.message).toContain("the guest is at the destination");
  const destEnd = await dest.end();
  expect(destEnd).toMatchObject({ exitCode: 1, report: { outcome: "failed", phase: "postcopy" } });
});

interruptTest("a snapshot that is served: the same, and its rest can be sent later", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const guest = `snapshot:${directory.file("guest")}`;
  {
    await using keeper = await startDest({ guest });
    const flags = ["--switchover", "now"];
    await using source = startSource({ to: keeper.peer, guest: CALM, flags });
    await Promise.all([source.end(), keeper.end()]);
  }
  await using dest = await startDest({ flags: NO_RECOVERY });
  const flags = ["--max-postcopy-bandwidth", "256KiB/s"];
  await using source = startSource({ guest, to: dest.peer, flags });
  await dest.event("running");
  source.program.kill("SIGTERM");
  const later =
    /it waits without them, until the same command with --resume sends them\. Interrupt once/;
  await source.program.stderr.waitForLine(later, { limitMs: HONOURED_MS });
  source.program.kill("SIGTERM");
  expect(await source.end()).toMatchObject({ exitCode: 143, stayed: undefined });
  expect((await dest.end()).exitCode).toBe(1);
});
