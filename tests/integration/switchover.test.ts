/** When the source switches over, and who may say so: the policy, a signal, a line of input. */
import { expect } from "bun:test";

import type { SourceReport } from "../../src/report/report.ts";
import { expectMoved, move, pages, startDest, startSource } from "../helpers/migration.ts";
import type { RoleEnd } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

/** A guest that writes more than any limit of these tests lets through. */
const BUSY = "stress:size=16MiB,rate=unlimited,duration=100ms";
/** A guest that hardly writes. */
const QUIET = "stress:size=16MiB,rate=1MiB/s,duration=100ms";
const COUNT = pages("16MiB");

function precopyMs(source: RoleEnd<SourceReport>): number {
  return source.report.times.precopy ?? 0;
}

migrationTest("rounds=2: two rounds, then postcopy", async () => {
  const { source, dest } = await move({ sourceFlags: ["--switchover", "rounds=2"] });
  expectMoved(source, dest, COUNT);
  expect(source.report.switchover).toMatchObject({ kind: "postcopy" });
  expect(source.report.rounds.map(({ round }) => round)).toEqual([1, 2]);
  const [first] = source.report.rounds;
  expect((first?.pagesNormal ?? 0) + (first?.pagesZero ?? 0)).toBe(COUNT);
  // What the guest wrote meanwhile, and only that, is sent again.
  expect(source.report.pages.owed).toBe(source.report.switchover?.dirtyPages ?? 0);
  expect(source.report.pages.owed).toBeLessThan(COUNT);
});

migrationTest("now: no precopy at all, every page follows", async () => {
  const { source, dest } = await move({ sourceFlags: ["--switchover", "now"] });
  expectMoved(source, dest, COUNT);
  expect(source.report.rounds).toEqual([]);
  expect(source.report.pages).toMatchObject({ precopyNormal: 0, precopyZero: 0, owed: COUNT });
  expect(source.report.times.precopy).toBeNull();
  expect(source.report.switchover?.reason).toBe("asked to switch at once");
});

migrationTest("auto: a guest that hardly writes is done in precopy", async () => {
  const { source, dest } = await move({ guest: QUIET });
  expectMoved(source, dest, COUNT);
  expect(source.report.switchover?.kind).toBe("precopy");
  expect(source.report.pages.owed).toBe(0);
  expect(dest.report).toMatchObject({ urgentChannel: false, pages: { missing: 0 } });
  expect(dest.report.faults.events).toBe(0);
  expect(dest.report.downtime?.method).toBe("one-clock");
});

migrationTest("auto: a guest that writes faster than the link goes on by postcopy", async () => {
  const sourceFlags = ["--max-bandwidth", "20MiB/s", "--downtime-limit", "50ms"];
  const { source, dest } = await move({ guest: BUSY, sourceFlags });
  expectMoved(source, dest, COUNT);
  expect(source.report.switchover).toMatchObject({
    kind: "postcopy",
    reason: "the set of dirty pages stopped shrinking",
  });
});

migrationTest(
  "auto: the same guest is done in precopy if it may stand still for long",
  async () => {
    const sourceFlags = ["--max-bandwidth", "20MiB/s", "--downtime-limit", "10s"];
    const { source, dest } = await move({ guest: BUSY, sourceFlags });
    expectMoved(source, dest, COUNT);
    expect(source.report.switchover?.kind).toBe("precopy");
    expect(source.report.switchover?.reason).toEndWith("dirty pages fit into the downtime limit");
    expect(source.report.rounds).toHaveLength(1);
  },
);

migrationTest("after=300ms: in the middle of a round", async () => {
  // The first round alone would take twelve seconds.
  const sourceFlags = ["--switchover", "after=300ms", "--max-bandwidth", "1MiB/s"];
  const { source, dest } = await move({ sourceFlags });
  expectMoved(source, dest, COUNT);
  expect(source.report.switchover?.reason).toBe("asked to switch after 300 ms");
  expect(precopyMs(source)).toBeGreaterThanOrEqual(300);
  const { precopyNormal, precopyZero } = source.report.pages;
  expect(precopyNormal + precopyZero).toBeLessThan(COUNT);
});

/** Moves a guest whose precopy would last for ever, and asks for the switchover. */
async function moveWhenAsked(
  ask: (program: { kill(signal: NodeJS.Signals): void; writeLine(line: string): void }) => void,
): Promise<void> {
  const flags = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"];
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, guest: BUSY, flags });
  await source.phase("precopy");
  ask(source.program);
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
  expect(sourceEnd.report.switchover).toMatchObject({
    kind: "postcopy",
    reason: "the operator asked for it",
  });
}

migrationTest("SIGUSR1 switches over", async () => {
  await moveWhenAsked((program) => program.kill("SIGUSR1"));
});

migrationTest(
  "a line `switchover` on standard input switches over, other lines do not",
  async () => {
    await moveWhenAsked((program) => {
      program.writeLine("switch");
      program.writeLine("switchover");
    });
  },
);

migrationTest("a SIGUSR1 before there is a migration counts for it", async () => {
  await using dest = await startDest();
  const flags = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"];
  const guest = "stress:size=64MiB,rate=unlimited,duration=100ms";
  await using source = startSource({ to: dest.peer, guest, flags });
  await source.program.stderr.waitForLine(/^Filling the memory/);
  source.program.kill("SIGUSR1");
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, pages("64MiB"));
  expect(sourceEnd.report.switchover?.reason).toBe("the operator asked for it");
});
