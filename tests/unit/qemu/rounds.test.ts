/** What is taken for a round of a QEMU's precopy, by answers as 7.2 and 11.1 give them. */
import { expect, test } from "bun:test";
import { PrecopyRounds } from "../../../src/guests/qemu/rounds.ts";
import { migrateSchema } from "../../../src/qmp/messages.ts";
import type { MigrateReply } from "../../../src/qmp/messages.ts";

const PAGES = 10_000;

interface State {
  syncs: number;
  sent: number;
  left: number;
  mbps?: number;
}

/** An answer of query-migrate; pages that were sent, half of them zero, and pages that are left. */
function answer({ syncs, sent, left, mbps = 0 }: State, more: object = {}): MigrateReply {
  return migrateSchema.parse({
    status: "active",
    ram: {
      ...{ transferred: sent * 2048, remaining: left * 4096, total: PAGES * 4096 },
      ...{ duplicate: sent / 2, normal: sent / 2, "dirty-pages-rate": 0 },
      ...{ "dirty-sync-count": syncs, "page-size": 4096, mbps },
    },
    ...more,
  });
}

/** The rounds that end in a series of looks, 10 ms apart. */
function roundsOf(limitMs: number, states: readonly State[]): (number | undefined)[] {
  const rounds = new PrecopyRounds(limitMs);
  return states.map((state, index) => rounds.take(answer(state), 10 * index)?.round);
}

test("up to 10.0 a round ends when QEMU looks at what was written again", () => {
  const looks = [
    { syncs: 1, sent: 2000, left: 8000 },
    { syncs: 1, sent: 9900, left: 100 },
    { syncs: 2, sent: 10_200, left: 4800 },
    { syncs: 2, sent: 14_900, left: 100 },
    { syncs: 3, sent: 15_400, left: 4600 },
  ];
  expect(roundsOf(1, looks)).toEqual([undefined, undefined, 1, undefined, 2]);
});

test("with a high downtime limit it looks while much is left, which ends the round as well", () => {
  // 800 Mbit/s are 100,000 bytes a ms: some 7300 pages in 300 ms.
  const looks = [
    { syncs: 1, sent: 2000, left: 8000, mbps: 800 },
    { syncs: 2, sent: 3000, left: 9000, mbps: 800 },
  ];
  expect(roundsOf(300, looks)).toEqual([undefined, 1]);
  expect(roundsOf(1, looks)).toEqual([undefined, undefined]);
});

test("11.1 looks all the time: a round is what was left at its begin, sent", () => {
  const looks = [
    { syncs: 2, sent: 1000, left: 9000 },
    { syncs: 3, sent: 4000, left: 9500 },
    { syncs: 4, sent: 9999, left: 9000 },
    { syncs: 5, sent: 10_001, left: 8999 },
    { syncs: 6, sent: 18_000, left: 9500 },
    { syncs: 7, sent: 19_000, left: 9500 },
  ];
  expect(roundsOf(1, looks)).toEqual([...[undefined, undefined, undefined, 1], ...[undefined, 2]]);
});

test("a round tells what it sent; the first also what went before the first look", () => {
  const rounds = new PrecopyRounds(1);
  expect(rounds.current).toBe(0);
  expect(rounds.take({}, 0)).toBeUndefined();
  expect(rounds.take(answer({ syncs: 1, sent: 2000, left: 8000 }), 5)).toBeUndefined();
  expect(rounds.current).toBe(1);
  expect(rounds.take(answer({ syncs: 2, sent: 10_000, left: 300 }), 25)).toEqual({
    ...{ round: 1, pagesNormal: 5000, pagesZero: 5000, bytes: 10_000 * 2048 },
    ...{ dirtyPagesAfter: 300, durationMs: 20 },
  });
  expect(rounds.current).toBe(2);
  expect(rounds.bytesPerMs).toBe((8000 * 4096) / 20);
});

test("pages that were sent encoded count as sent", () => {
  const rounds = new PrecopyRounds(1);
  const looks = [
    answer({ syncs: 2, sent: 0, left: PAGES }),
    answer({ syncs: 3, sent: 4000, left: PAGES }, { "xbzrle-cache": { pages: 3500 } }),
    answer(
      { syncs: 4, sent: 4000, left: PAGES },
      { "xbzrle-cache": { pages: 3500 }, compression: { pages: 2500 } },
    ),
  ];
  expect(looks.map((look, index) => rounds.take(look, index)?.pagesNormal)).toEqual([
    ...[undefined, undefined, 8000],
  ]);
});
