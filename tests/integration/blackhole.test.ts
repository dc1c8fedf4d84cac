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

const SIZE = "24MiB";
const GUEST = `stress:size=${SIZE},duration=100ms`;
const FLAGS = ["--insecure", "--link-timeout", "2s"];

/** A destination on the one host. */
async function receiveOn({ one }: TwoHosts): Promise<DestRole> {
  return await startDest({ listen: `tcp:${one.address}:0`, flags: FLAGS, before: one.enter });
}

/** A source on the other. */
function sendFrom({ other }: TwoHosts, to: string, flags: readonly string[]): SourceRole {
  return startSource({ to, guest: GUEST, flags: [...FLAGS, ...flags], before: other.enter });
}

linkTest("a link that goes dead in postcopy: both pause, and the guest is whole", async () => {
  await using hosts = await TwoHosts.start();
  await using dest = await receiveOn(hosts);
  const flags = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"];
  await using source = sendFrom(hosts, dest.peer, flags);
  await dest.event("running");
  await hosts.cut();
  await Promise.all([source.phase("paused"), dest.phase("paused")]);
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
});

linkTest("a link that goes dead in precopy: the guest goes on at the source", async () => {
  await using hosts = await TwoHosts.start();
  await using dest = await receiveOn(hosts);
  const flags = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"];
  await using source = sendFrom(hosts, dest.peer, flags);
  await dest.event("guest");
  await hosts.cut();
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect(sent).toMatchObject({ exitCode: 1, stayed: { pagesWrong: 0 } });
  expect(sent.error?.message).toContain("the guest goes on here");
  // It sends nothing all the while: that its peer is gone it learns by asking.
  expect(got).toMatchObject({ exitCode: 1, error: { code: "ETIMEDOUT" } });
  expect(got.stderr).toContain("The guest did not start here: it is the source's to go on with");
});
