/**
 * Processes in a ring, among which a guest goes round and round; they live on, so that what one
 * migration leaves behind adds up:
 *
 *     await using ring = await Ring.start(3);
 *     await ring.create("stress:size=16MiB");
 *     for (let hop = 0; hop < 300; hop++) await ring.move({ switchover: { kind: "now" } });
 *     expect(await ring.audit()).toMatchObject({ pagesWrong: 0 });
 *     expect(isFlat(await ring.figures(), before)).toBe(true);
 */
import { join } from "node:path";

import type { RingAnswer, RingFigures, RingOrder } from "../fixtures/ring-member.ts";
import { LONG_TEST_MS, withDeadline } from "./deadline.ts";
import { PROJECT_ROOT, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";

export type { RingFigures };

/** How long one order may take, on a machine that does much else. */
const ORDER_LIMIT_MS = 60_000;

/** How a guest is sent to the next member. */
export type Hop = Omit<Extract<RingOrder, { do: "send" }>, "do" | "to">;

export interface RingOptions {
  /** How long its processes may live. */
  lifeMs?: number;
  /** Added to their environment. */
  environment?: Record<string, string>;
}

/** The engine may start a helper late; what leaks adds up to more. */
const HOLDS_MORE_MAX = 1;

/** Whether no member holds more descriptors or threads than it did then. */
export function isFlat(now: readonly RingFigures[], then: readonly RingFigures[]): boolean {
  return now.every(({ descriptors, threads }, index) => {
    const before = then[index];
    if (before === undefined) return false;
    const more = Math.max(descriptors - before.descriptors, threads - before.threads);
    return more <= HOLDS_MORE_MAX;
  });
}

class Member {
  readonly program: RunningProgram;
  readonly #answers: AsyncGenerator<RingAnswer>;

  constructor({ lifeMs = LONG_TEST_MS, environment = {} }: RingOptions) {
    const file = join(PROJECT_ROOT, "tests", "fixtures", "ring-member.ts");
    this.program = spawn([process.execPath, file], { environment, lifeMs });
    this.#answers = this.program.events() as unknown as AsyncGenerator<RingAnswer>;
  }

  order(order: RingOrder): void {
    this.program.writeLine(JSON.stringify(order));
  }

  /** The next answer, which must be of that kind. */
  async answer<Kind extends RingAnswer["kind"]>(
    kind: Kind,
  ): Promise<Extract<RingAnswer, { kind: Kind }>> {
    const next = await withDeadline(
      this.#answers.next(),
      `a member of the ring to say "${kind}"`,
      ORDER_LIMIT_MS,
    );
    const isIt = (answer: RingAnswer): answer is Extract<RingAnswer, { kind: Kind }> =>
      answer.kind === kind;
    if (next.done !== true && isIt(next.value)) return next.value;
    throw new Error(`${JSON.stringify(next.value)}\n${this.program.stderr.tail}`);
  }
}

export class Ring implements AsyncDisposable {
  readonly #members: readonly Member[];
  #at = 0;
  /** Migrations so far. */
  hops = 0;

  private constructor(members: readonly Member[]) {
    this.#members = members;
  }

  static async start(count: number, options: RingOptions = {}): Promise<Ring> {
    const members = Array.from({ length: count }, () => new Member(options));
    const ring = new Ring(members);
    await Promise.all(members.map((member) => member.answer("ready")));
    return ring;
  }

  #member(index: number): Member {
    const member = this.#members[index % this.#members.length];
    if (member === undefined) throw new Error("a ring without members");
    return member;
  }

  /** Makes a guest at the member that had the last one. */
  async create(guest: string): Promise<void> {
    const member = this.#member(this.#at);
    member.order({ do: "create", guest });
    await member.answer("created");
  }

  /** Moves the guest to the next member. */
  async move(hop: Hop, listen = "tcp:127.0.0.1:0"): Promise<void> {
    const [from, to] = [this.#member(this.#at), this.#member(this.#at + 1)];
    to.order({ do: "receive", listen });
    const { peer } = await to.answer("listening");
    from.order({ do: "send", to: peer, ...hop });
    await Promise.all([from.answer("sent"), to.answer("arrived")]);
    this.#at = (this.#at + 1) % this.#members.length;
    this.hops++;
  }

  /** Ends the guest: every page is checked, and its life repeated. */
  async audit(): Promise<Extract<RingAnswer, { kind: "audited" }>> {
    const member = this.#member(this.#at);
    member.order({ do: "audit" });
    return await member.answer("audited");
  }

  /** What each member holds now. */
  async figures(): Promise<RingFigures[]> {
    return await Promise.all(
      this.#members.map(async (member) => {
        member.order({ do: "figures" });
        return (await member.answer("figures")).figures;
      }),
    );
  }

  /** What each member has printed on standard error. */
  get errors(): readonly string[] {
    return this.#members.map(({ program }) => program.stderr.text);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#members.map(({ program }) => program[Symbol.asyncDispose]()));
  }
}
