/** The ring of the soak: processes that live as long as it does, and must not grow. */
import { waitUntil } from "../../tests/helpers/deadline.ts";
import { isFlat, Ring } from "../../tests/helpers/ring.ts";
import type { Hop, RingFigures } from "../../tests/helpers/ring.ts";
import { TemporaryDirectory } from "../../tests/helpers/temporary-directory.ts";
import type { Random } from "../../tests/helpers/random.ts";

const MEMBERS = 3;
const LIFE_MS = 24 * 3_600_000;
const MIB = 1024 * 1024;

/** How much the resident memory of a member may grow, from the first third to the last. */
const GROWTH_KIB_MAX = 8 * 1024;
/** Figures of fewer turns than these say nothing about a trend; the first turn only warms up. */
const TURNS_MIN = 4;

const POLICIES: readonly Hop["switchover"][] = [
  { kind: "now" },
  { kind: "rounds", rounds: 1 },
  { kind: "rounds", rounds: 3 },
  { kind: "after", ms: 50 },
  { kind: "auto" },
];

function stressGuest(dice: Random): string {
  const keys = [
    `size=${dice.pick([16, 24, 32])}MiB`,
    `workers=${dice.between(1, 3)}`,
    `blocks=${dice.between(1, 2)}`,
    `discard=${dice.pick(["0", "0.01", "0.05"])}`,
    `rate=${dice.pick(["unlimited", "100MiB/s", "4MiB/s"])}`,
    `seed=${dice.between(1, 2 ** 31)}`,
  ];
  return `stress:${keys.join(",")}`;
}

export class RingWork implements AsyncDisposable {
  readonly #ring: Ring;
  readonly #directory = new TemporaryDirectory("ring");
  /** Of every member, after each turn. */
  readonly #samples: RingFigures[][] = [];
  #pages = 0;

  private constructor(ring: Ring) {
    this.#ring = ring;
  }

  static async start(): Promise<RingWork> {
    return new RingWork(await Ring.start(MEMBERS, { lifeMs: LIFE_MS }));
  }

  /** Migrations so far. */
  get hops(): number {
    return this.#ring.hops;
  }

  /** A guest goes so many members far, and is audited. */
  async turn(dice: Random, hops: number): Promise<string> {
    const guest = stressGuest(dice);
    await this.#ring.create(guest);
    for (let hop = 0; hop < hops; hop++) {
      const switchover = dice.pick(POLICIES);
      const limit = dice.chance(20) ? { maxBandwidth: 100 * MIB } : {};
      const listen = dice.chance(30) ? `unix:${this.#directory.file("socket")}` : "tcp:127.0.0.1:0";
      await this.#ring.move({ switchover, ...limit }, listen);
    }
    const { pagesChecked, pagesWrong } = await this.#ring.audit();
    if (pagesWrong > 0) throw new Error(`${pagesWrong} pages of ${guest} are wrong`);
    this.#pages += pagesChecked;
    await this.#sample();
    const now = this.#samples.at(-1) ?? [];
    const each = (figure: (of: RingFigures) => number): string => {
      return now.map((of) => figure(of).toFixed(0)).join("/");
    };
    return (
      `${hops} hops of ${guest}; resident ${each((of) => of.residentKib / 1024)} MiB, ` +
      `descriptors ${each((of) => of.descriptors)}, threads ${each((of) => of.threads)}`
    );
  }

  /** Waits until the members hold no more descriptors and threads than after the first turn. */
  async #sample(): Promise<void> {
    const first = this.#samples[0];
    if (first === undefined) {
      this.#samples.push(await this.#ring.figures());
      return;
    }
    const settled = await waitUntil(async () => {
      const now = await this.#ring.figures();
      return isFlat(now, first) ? now : undefined;
    }, "a ring that holds as many descriptors and threads as at first");
    this.#samples.push(settled);
  }

  /** What came of it, in words. @throws Error when a member has grown. */
  verdict(): string {
    const turns = this.#samples.slice(1);
    const text = `${this.hops} migrations in a ring, ${this.#pages} pages audited`;
    if (turns.length < TURNS_MIN) return text;
    const third = Math.ceil(turns.length / 3);
    const growth = Array.from({ length: MEMBERS }, (_, member) => {
      const mean = (samples: RingFigures[][]): number =>
        samples.reduce((sum, sample) => sum + (sample[member]?.residentKib ?? 0), 0) /
        samples.length;
      return mean(turns.slice(-third)) - mean(turns.slice(0, third));
    });
    const words = growth.map((kib) => `${(kib / 1024).toFixed(1)}`).join("/");
    if (Math.max(...growth) > GROWTH_KIB_MAX) throw new Error(`the ring grew by ${words} MiB`);
    return `${text}, resident memory ${words} MiB more in the last third than in the first`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ring[Symbol.asyncDispose]();
    await this.#directory[Symbol.asyncDispose]();
  }
}
