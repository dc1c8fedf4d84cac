/**
 * A link that breaks in the middle of postcopy between two ends of ours: both pause, the source comes
 * back by itself, and the guest, which runs on meanwhile, is whole at the end.
 */
import { expect } from "bun:test";

import { waitUntil } from "../helpers/deadline.ts";
import { Link } from "../helpers/link.ts";
import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const recoveryTest = requireOrSkip(needUserfaultfd());

const SIZE = "32MiB";
/** It writes all over its memory all the time, so that it waits for pages whenever it can. */
const GUEST = `stress:size=${SIZE},duration=300ms`;
const LIMIT = ["--max-postcopy-bandwidth", "8MiB/s"];
const SLOW = ["--switchover", "now", ...LIMIT];
const ENDLESS = ["--max-postcopy-bandwidth", "256KiB/s", "--no-record"];
/** What comes before the link stands still: the guest runs by then, and most of it is missing. */
const HELD_BEHIND = 2 ** 20;

/** Waits until the guest has run at the destination for a moment. */
async function runs(dest: DestRole): Promise<void> {
  await dest.event("running");
  await dest.event("progress");
}

/** It writes slowly, and is sent slowly, so that much is dirty and little is asked for. */
const CALM = {
  held: Infinity,
  guest: `stress:size=${SIZE},rate=4MiB/s,duration=300ms`,
  flags: ["--switchover", "rounds=1", "--max-bandwidth", "32MiB/s"],
  limit: ["--max-postcopy-bandwidth", "512KiB/s"],
};
/** Its runs are compressed, over each of its links. */
const WILD = {
  held: HELD_BEHIND,
  guest: GUEST,
  flags: ["--switchover", "now"],
  limit: [...LIMIT, "--compress", "zstd"],
};

for (const { held, guest, flags, limit } of [WILD, CALM]) {
  recoveryTest(`a link that breaks (${flags.join(" ")}): the guest is whole`, async () => {
    await using dest = await startDest();
    await using link = await Link.start(dest.peer);
    link.holdBehind(held);
    await using source = startSource({ to: link.uri, guest, flags: [...flags, ...limit] });
    await runs(dest);
    link.cut();
    await Promise.all([source.phase("paused"), dest.phase("paused")]);
    link.mend(dest.peer);
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
      { exitCode: 0 },
      { exitCode: 0 },
    ]);
    expect(sent.report).toMatchObject({ outcome: "completed", recoveries: 1 });
    const { pushedNormal, pushedCompressed } = sent.report.pages;
    expect(pushedCompressed).toBeWithin(limit.includes("zstd") ? 1 : 0, pushedNormal + 1);
    expect(got.report).toMatchObject({
      outcome: "completed",
      audit: { pagesChecked: pages(SIZE), pagesWrong: 0 },
    });
    for (const { events } of [sent, got]) {
      const percents = events.flatMap((event) =>
        event.event === "progress" && event.percent !== null ? [event.percent] : [],
      );
      expect(percents).toEqual(percents.toSorted((one, other) => one - other));
    }
  });
}

recoveryTest("a link that breaks over and over, also in the middle of recoveries", async () => {
  await using dest = await startDest();
  await using link = await Link.start(dest.peer);
  link.holdBehind(HELD_BEHIND);
  await using source = startSource({ to: link.uri, guest: GUEST, flags: SLOW });
  await runs(dest);
  for (let i = 0; i < 3; i++) {
    const carried = link.connections;
    link.cut();
    link.mendUntilAnswer(dest.peer);
    await waitUntil(() => link.connections > carried, "the source that comes back");
  }
  await waitUntil(() => link.isCut, "the end of the last try");
  link.mend(dest.peer);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect({ exitCode: sent.exitCode, stderr: sent.stderr }).toMatchObject({ exitCode: 0 });
  expect({ exitCode: got.exitCode, stderr: got.stderr }).toMatchObject({ exitCode: 0 });
  expect(got.report.audit).toEqual({ pagesChecked: pages(SIZE), pagesWrong: 0 });
});

recoveryTest("recover, on standard input or by SIGUSR2, ends a pause at once", async () => {
  for (const how of ["SIGUSR2", "recover"]) {
    await using dest = await startDest();
    await using link = await Link.start(dest.peer);
    link.holdBehind(HELD_BEHIND);
    await using source = startSource({ to: link.uri, guest: GUEST, flags: SLOW });
    await runs(dest);
    link.cut();
    await source.phase("paused");
    link.mend(dest.peer);
    if (how === "SIGUSR2") source.program.kill("SIGUSR2");
    else source.program.writeLine("recover");
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
    expect(got.report.audit?.pagesWrong).toBe(0);
  }
});

recoveryTest("two guests whose links are mixed up: neither gets a page of the other", async () => {
  const twins = { guest: "stress:size=16MiB,duration=100ms", flags: SLOW };
  await using one = await startDest();
  await using other = await startDest();
  await using link = await Link.start(one.peer);
  await using otherLink = await Link.start(other.peer);
  for (const each of [link, otherLink]) each.holdBehind(HELD_BEHIND);
  await using source = startSource({ to: link.uri, ...twins });
  await using otherSource = startSource({ to: otherLink.uri, ...twins });
  await Promise.all([runs(one), runs(other)]);
  link.cut();
  otherLink.cut();
  await Promise.all([source, otherSource, one, other].map((role) => role.phase("paused")));
  link.mend(other.peer);
  source.program.writeLine("recover");
  await source.event("warning", ({ code }) => code === "OTHER_GUEST");
  await other.event("warning", ({ message }) => message.includes("has another guest than"));
  link.mend(one.peer);
  otherLink.mend(other.peer);
  for (const { program } of [source, otherSource]) program.writeLine("recover");
  const sent = await Promise.all([source.end(), otherSource.end()]);
  const got = await Promise.all([one.end(), other.end()]);
  for (const { exitCode, stderr } of [...sent, ...got]) {
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  }
  for (const { report } of got) expect(report.audit?.pagesWrong).toBe(0);
});

recoveryTest("strangers do no harm while a destination waits for its source", async () => {
  await using dest = await startDest();
  await using link = await Link.start(dest.peer);
  link.holdBehind(HELD_BEHIND);
  await using source = startSource({ to: link.uri, guest: GUEST, flags: SLOW });
  await runs(dest);
  link.cut();
  await dest.phase("paused");
  const [, host = "", port = ""] = dest.peer.split(":");
  for (const words of ["GET / HTTP/1.1\r\n\r\n", "QEVM\0\0\0\u0003", "\b\0\n\0\u0003\u0002no"]) {
    const { promise, resolve } = Promise.withResolvers<void>();
    await Bun.connect({
      hostname: host,
      port: Number(port),
      socket: {
        open: (socket) => void socket.write(Buffer.from(words, "latin1")),
        data: () => {},
        close: () => resolve(),
        error: () => resolve(),
      },
    });
    if (!words.startsWith("\b")) await promise;
    else break;
  }
  link.mend(dest.peer);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
  expect(got.report.audit?.pagesWrong).toBe(0);
  expect(got.stderr).toContain("was turned away");
  expect(got.stderr).toContain('asks for the unknown block "no"');
});

recoveryTest("a source of a kept guest that is killed is started again with --resume", async () => {
  await using directory = new TemporaryDirectory("recover");
  const kept = `snapshot:${directory.file("guest")}`;
  await using keeping = await startDest({ guest: kept });
  const small = "stress:size=16MiB,rate=1MiB/s,duration=100ms";
  const flags = ["--switchover", "now"];
  await using first = startSource({ to: keeping.peer, guest: small, flags });
  await Promise.all([first.end(), keeping.end()]);
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, guest: kept, flags: ENDLESS });
  // Pages have come, and there is no end of it.
  await dest.event("progress", ({ phase, percent }) => phase === "postcopy" && (percent ?? 0) > 0);
  source.program.kill("SIGKILL");
  await dest.phase("paused");
  await using again = startSource({ to: dest.peer, guest: kept, flags: ["--resume"] });
  const [sent, got] = await Promise.all([again.end(), dest.end()]);
  expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(got.report.audit).toEqual({ pagesChecked: pages("16MiB"), pagesWrong: 0 });
  // Only what was missing is sent again.
  const { pushedNormal, pushedZero, requestedNormal, requestedZero } = sent.report.pages;
  const pagesSent = pushedNormal + pushedZero + requestedNormal + requestedZero;
  expect(pagesSent).toBeGreaterThan(0);
  expect(pagesSent).toBeLessThan(pages("16MiB"));
});
