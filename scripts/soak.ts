/**
 * Everything at random, for hours: a ring of processes that live on, links that break, sources that
 * are killed, QEMUs of all versions. Ends at the first wrong page, leak or hang.
 *
 *     bun scripts/soak.ts [--hours 2] [--seed N]
 *     bun scripts/soak.ts --ring 300        only the ring, so many migrations
 *
 * The last line says what was done. The same seed gives the same works, not the same timing.
 */
import { parseArgs } from "node:util";

import { RingWork } from "./soak/ring-work.ts";
import { Random } from "../tests/helpers/random.ts";
import { moveOverBrokenLinks, resumeAfterKills } from "./soak/link-works.ts";
import { qemusThere, throughQemus } from "./soak/qemu-works.ts";

/** One thing to do; says in a few words what it was. */
type Work = (dice: Random) => Promise<string>;

const HOUR_MS = 3_600_000;
/** Migrations of the ring between two lines of progress. */
const RING_TURN = 10;
/** No work takes so long unless something hangs. */
const WORK_LIMIT_MS = 10 * 60_000;

/** The text with the time, so that a log tells when things slowed down. */
function say(text: string): void {
  console.log(`${new Date().toISOString().slice(11, 19)} ${text}`);
}

async function limited<T>(what: string, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what} hangs`)), WORK_LIMIT_MS);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function soakRing(hops: number, dice: Random): Promise<string> {
  await using ring = await RingWork.start();
  while (ring.hops < hops) {
    say(`${ring.hops}/${hops} ${await limited("the ring", ring.turn(dice, RING_TURN))}`);
  }
  return ring.verdict();
}

async function soak(hours: number, dice: Random): Promise<string> {
  await using ring = await RingWork.start();
  const works: [name: string, work: Work][] = [
    ["ring", (random) => ring.turn(random, RING_TURN)],
    ["links", moveOverBrokenLinks],
    ["kills", resumeAfterKills],
  ];
  if (qemusThere().length > 0) works.push(["qemu", throughQemus]);
  const done = new Map<string, number>(works.map(([name]) => [name, 0]));
  const end = performance.now() + hours * HOUR_MS;
  while (performance.now() < end) {
    const [name, work] = dice.pick(works);
    say(`${name}: ${await limited(name, work(dice))}`);
    done.set(name, (done.get(name) ?? 0) + 1);
  }
  const counts = [...done].map(([name, count]) => `${count} ${name}`).join(", ");
  return `${counts}; ${ring.verdict()}`;
}

const { values } = parseArgs({
  options: {
    hours: { type: "string", default: "2" },
    seed: { type: "string" },
    ring: { type: "string" },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
const dice = new Random(seed);
const began = performance.now();
say(`seed ${seed}`);
try {
  const { ring, hours } = values;
  const summary = await (ring === undefined
    ? soak(Number(hours), dice)
    : soakRing(Number(ring), dice));
  const minutes = ((performance.now() - began) / 60_000).toFixed(0);
  console.log(`soaked for ${minutes} minutes with seed ${seed}: ${summary}; nothing wrong`);
} catch (error) {
  console.error(error);
  console.log(`soak failed after ${performance.now() - began} ms, with seed ${seed}`);
  process.exitCode = 1;
}
process.exit();
