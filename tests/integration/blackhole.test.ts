/**
 * A link that loses everything and tells nobody: both ends notice within the link timeout, whether
 * they are sending or only waiting, and what they do then is what they do on any broken link.
 */
import { expect } from "bun:test";

import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { TwoHosts, needTwoHosts } from "../helpers/two-hosts.ts";

const linkTest = requireOrSkip(needUserfaultfd(), needTwoHosts());

const SIZE = "16MiB";
/** It writes all the time, so that precopy goes on and on. */
const BUSY = `stress:size=${SIZE},duration=100ms`;
/** It asks for little, so that most of it is still missing when the link is cut. */
const CALM = `stress:size=${SIZE},rate=4MiB/s,duration=100ms`;
const FLAGS = ["--insecure", "--link-timeout", "2s"];

/** A destination on the one host. */
async function receiveOn({ one }: TwoHosts): Promise<DestRole> {
  return await startDest({ listen: `tcp:${one.address}:0`, flags: FLAGS, before: one.enter });
}

/** A source on the other. */
function sendFrom(
  { other }: TwoHosts,
  to: string,
  guest: string,
  flags: readonly string[],
): SourceRole {
  return startSource({ to, guest, flags: [...FLAGS, ...flags], before: other.enter });
}

linkTest(
  "a link goes dead: in postcopy both pause and go on later, in precopy it stays",
  async () => {
    await using hosts = await TwoHosts.start();
    await using earlyDest = await receiveOn(hosts);
    const rounds = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"];
    await using earlySource = sendFrom(hosts, earlyDest.peer, BUSY, rounds);
    await earlyDest.event("guest");
    await using dest = await receiveOn(hosts);
    const switched = ["--switchover", "now", "--max-postcopy-bandwidth", "4MiB/s"];
    await using source = sendFrom(hosts, dest.peer, CALM, switched);
    await dest.event("running");
    await hosts.cut();
    await Promise.all([source.phase("paused"), dest.phase("paused")]);

    const [stayed, unborn] = await Promise.all([earlySource.end(), earlyDest.end()]);
    expect(stayed).toMatchObject({ exitCode: 1, stayed: { pagesWrong: 0 } });
    expect(stayed.error?.message).toContain("the guest goes on here");
    // It sends nothing in precopy: that its peer is gone it learns by asking.
    expect(unborn).toMatchObject({ exitCode: 1, error: { code: "ETIMEDOUT" } });
    expect(unborn.stderr).toContain(
      "The guest did not start here: it is the source's to go on with",
    );

    await hosts.mend();
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
      { exitCode: 0 },
      { exitCode: 0 },
    ]);
    expect(sent.report).toMatchObject({ outcome: "completed", recoveries: 1 });
    expect(got.report.audit).toEqual({ pagesChecked: pages(SIZE), pagesWrong: 0 });
    const why = sent.events.find((event) => event.event === "warning");
    expect(why?.message).toContain("broke (ETIMEDOUT)");
  },
);
