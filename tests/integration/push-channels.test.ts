/**
 * A push that goes on several channels. How many that are by itself depends on the processors of a host,
 * so both ends are told; what must not depend on it is the guest.
 */
import { expect } from "bun:test";

import { makeCertificates } from "../helpers/certificates.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { Link } from "../helpers/link.ts";
import type { Event } from "../../src/report/events.ts";
import { expectMoved, move, pages, startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const channelsTest = requireOrSkip(needUserfaultfd());

const NOW = ["--switchover", "now"];
const MIB = 2 ** 20;
/** More than a page and what says which it is. */
const RECORD_BYTES_MAX = 4200;

function channels(count: number): string[] {
  return ["--channels", String(count)];
}

channelsTest("pages come on each of them, and each page once", async () => {
  // It writes and discards all the time, so pages are placed while userfault events are read.
  const guest = "stress:size=96MiB,workers=2,rate=unlimited,duration=100ms";
  const sourceFlags = [...NOW, ...channels(4)];
  await using dest = await startDest({ flags: channels(8) });
  await using link = await Link.start(dest.peer);
  // No one of them brings all: each has to take its share.
  link.holdBehind(2 * MIB);
  await using source = startSource({ to: link.uri, guest, flags: sourceFlags });
  const others = [2, 3, 4];
  const haveBrought = (): boolean => others.every((channel) => link.carried(channel) > MIB);
  await waitUntil(haveBrought, "pages on each channel");
  link.carryOn();
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sent, got, pages("96MiB"));
  expect([sent.report.pushChannels, got.report.pushChannels]).toEqual([4, 4]);
  // The main one, the urgent one, and three more.
  expect(link.connections).toBe(5);
  // What was sent once more may be under way when the last page has come.
  const [
    {
      bytes,
      pages: { repeated },
    },
    {
      bytes: { total },
    },
  ] = [sent.report, got.report];
  expect(bytes.total).toBeWithin(total - 1024, total + 1024 + repeated * RECORD_BYTES_MAX);
});

channelsTest("after precopy rounds, and compressed", async () => {
  const sourceFlags = ["--switchover", "rounds=1", "--compress", "zstd", ...channels(3)];
  const guest = "stress:size=64MiB,duration=100ms";
  const { source, dest } = await move({ guest, sourceFlags, destFlags: channels(3) });
  expectMoved(source, dest, pages("64MiB"));
  expect(source.report.pushChannels).toBe(3);
});

/** `says`: what the one warning ends with; undefined where there is none. */
const FEWER: Readonly<
  Record<string, { source: string[]; dest: string[]; count: number; says: string | undefined }>
> = {
  "the destination wants fewer": {
    source: channels(4),
    dest: channels(2),
    count: 2,
    says: "goes on 2 channels in place of the 4 of --channels: the destination takes 2",
  },
  "the destination wants one": {
    source: channels(4),
    dest: channels(1),
    count: 1,
    says: "goes on one channel in place of the 4 of --channels: the destination takes 1",
  },
  "the source wants one": {
    source: channels(1),
    dest: channels(4),
    count: 1,
    says: undefined,
  },
  "the push is limited": {
    source: [...channels(4), "--max-postcopy-bandwidth", "500MiB/s"],
    dest: channels(4),
    count: 1,
    says: "--max-postcopy-bandwidth is kept by one",
  },
};

/** What a role was warned about. */
function warnings({ events }: { events: readonly Event[] }): string[] {
  return events.flatMap((each) => (each.event === "warning" ? [each.message] : []));
}

for (const [why, { source: sourceFlags, dest: destFlags, count, says }] of Object.entries(FEWER)) {
  channelsTest(`where ${why} there are ${count}`, async () => {
    const { source, dest } = await move({ sourceFlags: [...NOW, ...sourceFlags], destFlags });
    expectMoved(source, dest, pages("16MiB"));
    expect([source.report.pushChannels, dest.report.pushChannels]).toEqual([count, count]);
    const said = says === undefined ? [] : [expect.stringContaining(says)];
    expect(warnings(source)).toEqual(said);
  });
}

channelsTest("over TLS, which one thread encrypts, there is one", async () => {
  await using certificates = makeCertificates();
  const flags = [...channels(4), "--tls", certificates.path];
  const { source, dest } = await move({ sourceFlags: [...NOW, ...flags], destFlags: flags });
  expectMoved(source, dest, pages("16MiB"));
  expect(source.report.pushChannels).toBe(1);
  expect(warnings(source)).toEqual([expect.stringContaining("over TLS one thread encrypts")]);
});

channelsTest(
  "one that breaks breaks the link: what was under way on it is sent again",
  async () => {
    const guest = "stress:size=96MiB,workers=2,duration=100ms";
    await using dest = await startDest({ flags: channels(3) });
    await using link = await Link.start(dest.peer);
    // What is pushed on it behind that is claimed and does not arrive.
    link.holdBehind(2 * MIB);
    await using source = startSource({ to: link.uri, guest, flags: [...NOW, ...channels(3)] });
    const haveBrought = (): boolean => [2, 3].every((channel) => link.carried(channel) > MIB);
    await waitUntil(haveBrought, "pages on both further channels");
    link.cutOne(3);
    link.carryOn();
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
      { exitCode: 0 },
      { exitCode: 0 },
    ]);
    expect(sent.report).toMatchObject({ outcome: "completed", recoveries: 1, pushChannels: 3 });
    expect(got.report.audit).toEqual({ pagesChecked: pages("96MiB"), pagesWrong: 0 });
  },
);

const POOL_PAGES = 32;
const hugeTest = requireOrSkip(needUserfaultfd(), needHugePages(POOL_PAGES));

hugeTest("huge pages are put together on each channel by itself", async () => {
  await using _ = await HugePages.add(POOL_PAGES);
  const guest = "stress:size=32MiB,page-size=2M,rate=unlimited,duration=100ms";
  const sourceFlags = [...NOW, ...channels(3)];
  const { source, dest } = await move({ guest, sourceFlags, destFlags: channels(3) });
  expectMoved(source, dest, pages("32MiB"));
  expect(dest.report.pushChannels).toBe(3);
});
