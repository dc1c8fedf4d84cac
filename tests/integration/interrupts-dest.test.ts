/**
 * Ctrl-C at the destination, in every phase: until the guest runs here the source is told that it
 * may keep it; afterwards the operator is told what is lost, and has to press again.
 */
import { expect } from "bun:test";
import { createServer } from "node:net";
import type { Socket } from "node:net";

import type { DestReport } from "../../src/report/report.ts";
import { withDeadline } from "../helpers/deadline.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  BEFORE_PACKAGE,
  bytesOf,
  opening,
  openReturnPath,
  packaged,
  ping,
} from "../helpers/hand-made-stream.ts";
import type { Piece } from "../helpers/hand-made-stream.ts";
import { Link } from "../helpers/link.ts";
import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, RoleEnd } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const interruptTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const SLOW_PRECOPY = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"] as const;
/** A guest that hardly asks for anything, and is sent so slowly that it is far from whole. */
const CALM = "stress:size=16MiB,rate=1MiB/s,duration=100ms";
const SLOW_POSTCOPY = ["--switchover", "now", "--max-postcopy-bandwidth", "256KiB/s"] as const;
/**
 * Within this the destination must have ended. A second is promised; a machine may be busy, but what
 * waits for a link or a peer waits for longer.
 */
const HONOURED_MS = 20_000;

/** Interrupts a destination at which the guest does not run yet, and waits for its end. */
async function expectInterrupted(
  dest: DestRole,
  signal: "SIGINT" | "SIGTERM" = "SIGINT",
): Promise<RoleEnd<DestReport>> {
  const began = performance.now();
  dest.program.kill(signal);
  const end = await dest.end();
  expect(performance.now() - began).toBeLessThan(HONOURED_MS);
  expect(end).toMatchObject({
    exitCode: signal === "SIGINT" ? 130 : 143,
    error: undefined,
    report: { outcome: "cancelled", error: { code: "STOPPED" }, audit: null },
  });
  return end;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  interruptTest(`while nobody connects (${signal})`, async () => {
    await using dest = await startDest();
    const end = await expectInterrupted(dest, signal);
    expect(end.report.phase).toBe("waiting");
  });
}

interruptTest("while a holder is asked that stands still: it is not waited for", async () => {
  await using directory = new TemporaryDirectory("held");
  const held = directory.file("held");
  const asked = Promise.withResolvers<Socket>();
  await using holder = createServer((connection) =>
    asked.resolve(connection.on("error", () => {})),
  );
  holder.listen(held);
  const words = ["--guest", `uffd:${directory.file("vmm")}`, "--keep-fd", `holder:${held}`];
  const listen = ["--listen", "tcp:127.0.0.1:0"];
  await using dest = spawn(postcopyCommand("dest", ...words, ...listen));
  const connection = await withDeadline(asked.promise, "the question");
  dest.kill("SIGINT");
  expect(await dest.finish()).toMatchObject({ exitCode: 130 });
  connection.destroy();
});

interruptTest("while somebody is connected and says nothing", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  await expectInterrupted(dest);
  await peer.otherEnd();
});

/** Where a hand-made source stops in the middle, and the phase in which that is. */
const STANDSTILLS: Readonly<Record<string, { pieces: readonly Piece[]; phase: string }>> = {
  "behind the opening": { pieces: [opening(), openReturnPath, ping(1)], phase: "precopy" },
  "in the middle of the package": {
    pieces: [...BEFORE_PACKAGE, (writer) => writer.raw(bytesOf(packaged()).subarray(0, 100))],
    phase: "device",
  },
};

for (const [where, { pieces, phase }] of Object.entries(STANDSTILLS)) {
  interruptTest(`when the source stops ${where}: it may go on with the guest`, async () => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    peer.send(bytesOf(...pieces));
    await dest.phase(phase);
    await peer.message(({ kind }) => kind === "pong");
    const end = await expectInterrupted(dest);
    expect(end.stderr).toContain("The guest did not start here: it is the source's to go on with");
    await peer.otherEnd();
    expect(peer.messages.at(-1)).toEqual({ kind: "shut", status: 1 });
  });
}

interruptTest("while the device state waits for a page that does not come", async () => {
  await using dest = await startDest();
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(bytesOf(...BEFORE_PACKAGE, packaged()));
  await peer.message(({ kind }) => kind === "pageRequest");
  const end = await expectInterrupted(dest);
  expect(end.report.phase).toBe("device");
  await peer.otherEnd();
  expect(peer.messages.at(-1)).toEqual({ kind: "shut", status: 1 });
});

interruptTest("in precopy: the guest stays at the source", async () => {
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, flags: SLOW_PRECOPY });
  await dest.event("guest");
  await expectInterrupted(dest);
  expect(await source.end()).toMatchObject({
    exitCode: 1,
    stayed: { pagesChecked: COUNT, pagesWrong: 0 },
  });
});

interruptTest("in precopy of a guest that is to be kept: there is no snapshot", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  await using dest = await startDest({ guest: `snapshot:${directory.file("guest")}` });
  await using source = startSource({ to: dest.peer, flags: SLOW_PRECOPY });
  await dest.event("guest");
  await expectInterrupted(dest);
  expect((await source.end()).stayed).toMatchObject({ pagesWrong: 0 });
  expect(await Bun.file(directory.file("guest/manifest.json")).exists()).toBe(false);
});

/** The phases that a role said it was in. */
function phasesOf({ events }: RoleEnd<unknown>): string[] {
  return events.flatMap((each) => (each.event === "phase" ? [each.phase] : []));
}

/** What the first press says once the guest runs here. */
const WARNING =
  /The guest is here already and ([\d,]+) of its pages are not: ending now loses it\. Interrupt once more to give it up\./;

interruptTest("in postcopy: the first press warns, and the guest arrives", async () => {
  await using dest = await startDest();
  await using link = await Link.start(dest.peer);
  link.holdBehind(2 ** 20);
  await using source = startSource({ to: link.uri, flags: ["--switchover", "now"] });
  await dest.event("running");
  dest.program.kill("SIGINT");
  await dest.program.stderr.waitForLine(WARNING, { limitMs: HONOURED_MS });
  link.carryOn();
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expect(sourceEnd.exitCode).toBe(0);
  // A press that was only warned about, and not repeated, changes nothing.
  expect(destEnd.exitCode).toBe(0);
  expect(destEnd.report).toMatchObject({
    outcome: "completed",
    audit: { pagesChecked: COUNT, pagesWrong: 0 },
  });
});

interruptTest("in postcopy: the second press gives the guest up", async () => {
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, guest: CALM, flags: SLOW_POSTCOPY });
  await dest.event("running");
  dest.program.kill("SIGTERM");
  const [, missing = ""] = await dest.program.stderr.waitForLine(WARNING, { limitMs: HONOURED_MS });
  expect(Number(missing.replaceAll(",", ""))).toBeGreaterThan(0);
  dest.program.kill("SIGTERM");
  expect(await dest.end()).toMatchObject({
    exitCode: 143,
    error: undefined,
    report: { outcome: "abandoned", phase: "postcopy", error: { code: "STOPPED" }, audit: null },
  });
  // Nobody waits there any more: it does not try to come back, nor goes back to what the guest was.
  const end = await source.end();
  expect(end).toMatchObject({
    exitCode: 4,
    stayed: undefined,
    error: { code: "GUEST_GONE" },
    report: { outcome: "failed", phase: "postcopy", error: { code: "GUEST_GONE" } },
  });
  expect(end.error?.message).toBe(
    "The migration failed after the switchover, and the guest is lost: " +
      "The guest ran at the destination, which has given it up",
  );
  expect(phasesOf(end)).not.toContain("paused");
});

interruptTest(
  "in postcopy of a guest from files: the same, and it is as it was there",
  async () => {
    await using directory = new TemporaryDirectory("snapshot");
    const guest = `snapshot:${directory.file("guest")}`;
    {
      await using keeper = await startDest({ guest });
      await using source = startSource({ to: keeper.peer, flags: ["--switchover", "now"] });
      await Promise.all([source.end(), keeper.end()]);
    }
    await using dest = await startDest();
    const flags = ["--max-postcopy-bandwidth", "1MiB/s"];
    await using source = startSource({ guest, to: dest.peer, flags });
    await dest.event("running");
    dest.program.kill("SIGINT");
    await dest.program.stderr.waitForLine(WARNING, { limitMs: HONOURED_MS });
    dest.program.kill("SIGINT");
    expect(await dest.end()).toMatchObject({ exitCode: 130, report: { outcome: "abandoned" } });
    const end = await source.end();
    expect(end).toMatchObject({ exitCode: 4, error: { code: "GUEST_GONE" } });
    expect(end.error?.message).toStartWith("The migration failed; what was kept is as it was: ");
    expect(phasesOf(end)).not.toContain("paused");
  },
);

interruptTest("when the guest runs on, whole: it is audited, and then it ends", async () => {
  await using dest = await startDest();
  const guest = "stress:size=16MiB,duration=1h";
  await using source = startSource({ to: dest.peer, guest });
  expect((await source.end()).exitCode).toBe(0);
  await dest.event("drained");
  dest.program.kill("SIGINT");
  const end = await dest.end();
  expect(end.exitCode).toBe(130);
  expect(end.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
});
