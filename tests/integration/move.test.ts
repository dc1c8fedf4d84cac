/**
 * Stress guests of every shape are moved, and audited at the end: page by page against their
 * versions, and the versions against a re-run of the guest's whole life.
 */
import { expect } from "bun:test";

import { expectMoved, move, pages } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const ROUNDS = ["--switchover", "rounds=1"] as const;
const NOW = ["--switchover", "now"] as const;
/** So slow that most pages are asked for before they are pushed. */
const SLOW_PUSH = ["--max-postcopy-bandwidth", "4MiB/s"] as const;

migrationTest("a guest of the default shape", async () => {
  const guest = "stress:size=64MiB,duration=500ms";
  const { source, dest } = await move({ guest, sourceFlags: ROUNDS });
  expectMoved(source, dest, pages("64MiB"));
  expect(dest.report.urgentChannel).toBe(true);
  expect(source.report.pages.owed).toBeGreaterThan(0);
  expect(dest.report.downtime?.method).toBe("one-clock");
  expect(dest.report.downtime?.ms).toBeGreaterThan(0);
  expect(source.report.downtime?.method).toBe("acknowledged");
});

migrationTest(
  "faults are answered on the urgent channel, before the push comes to them",
  async () => {
    const guest = "stress:size=16MiB,rate=unlimited,discard=0,duration=100ms";
    const { source, dest } = await move({ guest, sourceFlags: [...NOW, ...SLOW_PUSH] });
    expectMoved(source, dest, pages("16MiB"));
    expect(dest.report.urgentChannel).toBe(true);
    expect(source.report.requests.served).toBeGreaterThan(100);
    expect(dest.report.pages.urgentNormal).toBeGreaterThan(100);
    expect(dest.report.faults.latencyNs?.count).toBeGreaterThan(100);
    expect(source.report.requestServiceNs?.count).toBe(source.report.requests.served);
  },
);

migrationTest("three RAM blocks, four workers, no limit on writes", async () => {
  const guest = "stress:size=16MiB,blocks=3,workers=4,rate=unlimited,duration=100ms";
  const { source, dest } = await move({ guest, sourceFlags: [...ROUNDS, ...SLOW_PUSH] });
  expectMoved(source, dest, pages("16MiB"));
  const blocks = dest.events.find((event) => event.event === "guest")?.blocks;
  expect(blocks).toEqual([
    { name: "stress.ram0", bytes: pages("16MiB") * 4096 - 2 * 1365 * 4096, pageSize: 4096 },
    { name: "stress.ram1", bytes: 1365 * 4096, pageSize: 4096 },
    { name: "stress.ram2", bytes: 1365 * 4096, pageSize: 4096 },
  ]);
});

migrationTest(
  "a guest that writes and discards all the time, also while it is switched over",
  async () => {
    const guest = "stress:size=64MiB,workers=2,rate=unlimited,discard=0.3,duration=100ms";
    const { source, dest } = await move({ guest, sourceFlags: ROUNDS });
    expectMoved(source, dest, pages("64MiB"));
    expect(source.report.pages.owed).toBeGreaterThan(0);
  },
);

migrationTest("a guest that is nearly all zeros", async () => {
  const guest = "stress:size=16MiB,zero=90%,hot=0.1,duration=100ms";
  const { source, dest } = await move({ guest, sourceFlags: ROUNDS });
  expectMoved(source, dest, pages("16MiB"));
  const [round] = source.report.rounds;
  expect(round?.pagesZero).toBeGreaterThan(0.89 * pages("16MiB"));
  // A page of zeros costs some bytes, not a page.
  expect(round?.bytes).toBeLessThan(0.12 * 16 * 2 ** 20);
  expect(dest.report.memory.guestBytes).toBe(16 * 2 ** 20);
});

migrationTest(
  "a guest that never writes: one page is discarded and sent again all the same",
  async () => {
    const guest = "stress:size=1MiB,zero=100%,hot=0,discard=0,duration=50ms";
    const { source, dest } = await move({ guest, sourceFlags: ROUNDS });
    expectMoved(source, dest, pages("1MiB"));
    expect(source.report.switchover?.dirtyPages).toBe(0);
    expect(source.report.pages.owed).toBe(1);
  },
);

migrationTest("a guest that discards a lot while it moves", async () => {
  const guest = "stress:size=16MiB,discard=0.05,rate=unlimited,workers=4,duration=200ms";
  const { source, dest } = await move({ guest, sourceFlags: [...NOW, ...SLOW_PUSH] });
  expectMoved(source, dest, pages("16MiB"));
  expect(dest.report.pages.removed).toBeGreaterThan(0);
  expect(dest.report.pages.dropped).toBeGreaterThan(0);
});

migrationTest(
  "what is pushed is compressed on a slow link, and not where it was not asked",
  async () => {
    // With requests, which never are.
    const guest = "stress:size=16MiB,zero=0,discard=0,rate=1MiB/s,duration=100ms";
    // So slow that the limit is what the push waits for, also on a processor that others have.
    const slow = [...NOW, "--max-postcopy-bandwidth", "8MiB/s"];
    const pushed: number[] = [];
    for (const compress of ["auto", "zstd", "off"]) {
      const { source, dest } = await move({
        guest,
        sourceFlags: [...slow, "--compress", compress],
      });
      expectMoved(source, dest, pages("16MiB"));
      const { pushedNormal, pushedCompressed } = source.report.pages;
      if (compress === "off") expect(pushedCompressed).toBe(0);
      else expect(pushedCompressed).toBeWithin(1, pushedNormal + 1);
      pushed.push(source.report.bytes.postcopy / pushedNormal);
    }
    const [auto = 0, always = 0, never = 0] = pushed;
    expect(always).toBeLessThan(auto);
    expect(auto).toBeLessThan(never);
    expect(never).toBeWithin(4096, 4110);
  },
);

migrationTest("ten pages", async () => {
  const { source, dest } = await move({
    guest: "stress:size=40KiB,duration=50ms",
    sourceFlags: ROUNDS,
  });
  expectMoved(source, dest, 10);
});

migrationTest("one page", async () => {
  const { source, dest } = await move({
    guest: "stress:size=4KiB,workers=1,duration=50ms",
    sourceFlags: NOW,
  });
  expectMoved(source, dest, 1);
});
