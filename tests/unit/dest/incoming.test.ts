/** A source that sends a stream made by hand: what becomes of the guest, and what the source is told. */
import { describe, expect, test } from "bun:test";
import { withFurtherPushChannels } from "../../../src/stream/further-channel.ts";
import { FATE } from "../../../src/dest/refusal.ts";
import type { DestShared } from "../../../src/dest/shared.ts";
import { WORD } from "../../../src/dest/shared.ts";
import {
  FEATURE,
  FEATURES_OURS,
  PONG_RUNNING,
  answerValue,
  chosenValue,
  helloValue,
  tokenValues,
} from "../../../src/stream/hello.ts";
import type { ReturnPathMessage } from "../../../src/stream/return-path.ts";
import {
  BEFORE_PACKAGE,
  advise,
  bytesOf,
  discard,
  eof,
  opening,
  openReturnPath,
  packaged,
  ping,
  ramEnd,
  ramStart,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import {
  CHOSEN,
  IDENTITY,
  IncomingBench,
  MEMORY,
  START,
  TOKEN,
} from "../../helpers/incoming-bench.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as DescriptorsFixture from "../../fixtures/descriptors.ts";

/** What `act` throws. */
function failureOf(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

describe("a guest that is whole", () => {
  const running = (message: ReturnPathMessage): boolean =>
    message.kind === "pong" && message.value === PONG_RUNNING;
  const shut = ({ kind }: ReturnPathMessage): boolean => kind === "shut";

  test("is told of", () => {
    using bench = new IncomingBench();
    expect(bench.feed(...START, ...CHOSEN, ...MEMORY).run()).toEqual({ completedIn: "precopy" });
    expect(bench.life).toEqual(["runs", "is whole"]);
    expect(bench.warnings).toEqual([]);
    expect(bench.sent.slice(-2)).toEqual([
      { kind: "pong", value: PONG_RUNNING },
      { kind: "shut", status: 0 },
    ]);
  });

  test.each([
    ["that it runs", running, "The source was not told that the guest runs: The link broke"],
    [
      "that it is whole",
      shut,
      "The source was not told that the guest is whole here: The link broke",
    ],
  ] as const)("is not lost when the source cannot be told %s", (_, broken, warning) => {
    using bench = new IncomingBench(broken);
    expect(bench.feed(...START, ...CHOSEN, ...MEMORY).run()).toEqual({ completedIn: "precopy" });
    expect(bench.life).toEqual(["runs", "is whole"]);
    expect(bench.warnings).toEqual([warning]);
  });
});

/** What a source has said when it falls silent, in words, and what it should have gone on with. */
const SILENCES: Readonly<Record<string, { said: readonly Piece[]; due: string }>> = {
  "behind the magic": { said: [(writer) => writer.u32(0x5145_564d)], due: "RAM blocks" },
  "behind the configuration": { said: [opening()], due: "RAM blocks" },
  "behind PING": { said: [...START, ping(1)], due: "RAM blocks" },
  "behind ADVISE": { said: [...START, ping(1), advise()], due: "RAM blocks" },
  "within the list of RAM blocks": {
    said: [
      ...[...START, ping(1), advise()],
      (writer) => writer.raw(bytesOf(ramStart()).subarray(0, 30)),
    ],
    due: "RAM blocks",
  },
  "behind the head of the package": {
    said: [...BEFORE_PACKAGE, (writer) => writer.raw(bytesOf(packaged()).subarray(0, 9))],
    due: "device state",
  },
  "within the package": {
    said: [...BEFORE_PACKAGE, (writer) => writer.raw(bytesOf(packaged()).subarray(0, 100))],
    due: "device state",
  },
};

describe("a source that falls silent", () => {
  for (const [where, { said, due }] of Object.entries(SILENCES)) {
    test(`${where} is not waited for for ever`, () => {
      using bench = new IncomingBench();
      bench.context.linkTimeoutMs = 30;
      bench.feed(...said);
      const failure = failureOf(() => bench.run());
      expect(failure).toMatchObject({ code: "PEER_SLOW" });
      expect(String(failure)).toMatch(new RegExp(`did not send the .*${due} within \\d`));
      if (said.includes(openReturnPath)) {
        expect(bench.sent.at(-1)).toEqual({ kind: "shut", status: 1 });
      }
    });

    test(`${where}, or rather dribbles, is not waited for either`, async () => {
      const fixture = import.meta.resolve("../../fixtures/descriptors.ts");
      await using dribbler = await startThread<typeof DescriptorsFixture>(fixture);
      using bench = new IncomingBench();
      bench.context.linkTimeoutMs = 60;
      const rest = bytesOf(...BEFORE_PACKAGE, packaged()).subarray(bytesOf(...said).length);
      const dribbling = dribbler.call("dribbleOn", bench.feed(...said).sourceFd, rest, 10);
      expect(failureOf(() => bench.run())).toMatchObject({ code: "PEER_SLOW" });
      bench.closeOurs();
      expect(await dribbling).toBeLessThan(rest.length);
    });
  }

  test("in its opening, while others may come, was nobody, and nothing is decided", () => {
    using bench = new IncomingBench();
    bench.context.linkTimeoutMs = 30;
    bench.context.othersMayCome = true;
    bench.feed(...START, ping(1), advise());
    expect(bench.run()).toMatchObject({ turnedAway: { code: "PEER_SLOW" } });
    expect(bench.sent).toEqual([{ kind: "pong", value: 1 }]);
    const { control } = bench.shared;
    expect(Atomics.load(control, WORD.returnPathOpen)).toBe(0);
    expect(Atomics.load(control, WORD.fate)).toBe(FATE.open);
  });

  test("afterwards may take its time", () => {
    using bench = new IncomingBench();
    bench.feed(...START, ramStart(), eof);
    expect(() => bench.run()).toThrow("The stream ended before the guest's memory did");
    expect(bench.context.channel.timeoutMs).toBe(Infinity);
  });
});

describe("the hello", () => {
  const chosenOf = ({ control }: DestShared): number => Atomics.load(control, WORD.urgentChosen);

  test("is answered with what this end can do", () => {
    using bench = new IncomingBench();
    bench.context.features = FEATURE.running;
    bench.feed(...START, ping(helloValue(FEATURES_OURS)), ...MEMORY).run();
    expect(bench.sent[0]).toEqual({ kind: "pong", value: answerValue(FEATURE.running) });
    expect(chosenOf(bench.shared)).toBe(0);
    // Who has chosen nothing is told nothing.
    expect(bench.sent.slice(1)).toEqual([{ kind: "shut", status: 0 }]);
  });

  test("is not let choose more than it was offered, nor twice", () => {
    const chosen = ping(chosenValue(FEATURE.running));
    const more = ping(chosenValue(withFurtherPushChannels(FEATURE.running, 1)));
    for (const choices of [[more], [chosen, chosen]]) {
      using bench = new IncomingBench();
      bench.feed(...START, ...choices, ...MEMORY);
      expect(() => bench.run()).toThrow("The source chose what it was not offered, or twice");
    }
  });

  test("gives the token that the urgent channel is known by", () => {
    using bench = new IncomingBench();
    bench.feed(...START, ...CHOSEN, ...MEMORY).run();
    expect(chosenOf(bench.shared)).toBe(1);
    expect(Atomics.load(bench.shared.control, WORD.urgentToken) >>> 0).toBe(TOKEN);
  });

  test("may choose no urgent channel", () => {
    using bench = new IncomingBench();
    bench.feed(...START, ping(chosenValue(FEATURE.running)), ...MEMORY).run();
    expect(chosenOf(bench.shared)).toBe(0);
    expect(bench.sent).toContainEqual({ kind: "pong", value: PONG_RUNNING });
  });

  test("says whether page runs come, and whether they are compressed", () => {
    const { pageRuns, packedRuns, running } = FEATURE;
    for (const [bits, runs, packed] of [
      [running, 0, 0],
      [pageRuns, 1, 0],
      [pageRuns | packedRuns, 1, 1],
      // Without runs there is nothing to compress.
      [packedRuns, 0, 0],
    ] as const) {
      using bench = new IncomingBench();
      bench.feed(...START, ping(chosenValue(bits)), ...MEMORY).run();
      const { control } = bench.shared;
      expect(Atomics.load(control, WORD.pageRuns)).toBe(runs);
      expect(Atomics.load(control, WORD.packedRuns)).toBe(packed);
    }
  });

  test("may not choose one without a token", () => {
    using bench = new IncomingBench();
    const [high] = tokenValues(TOKEN);
    bench.feed(
      ...START,
      ping(high),
      ...IDENTITY.map(ping),
      ping(chosenValue(FEATURES_OURS)),
      ...MEMORY,
    );
    expect(() => bench.run()).toThrow("The source chose an urgent channel without a token");
    expect(bench.sent.at(-1)).toEqual({ kind: "shut", status: 1 });
    expect(bench.life).toEqual([]);
  });
});

describe("a stream that ends by itself", () => {
  test("may have advised postcopy", () => {
    using bench = new IncomingBench();
    bench.feed(...START, advise(), ...MEMORY);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
  });

  test("may not have discarded anything: that would never come", () => {
    using bench = new IncomingBench();
    bench.feed(...START, advise(), ramStart(), discard(), ramEnd(zeroPages()), eof);
    expect(() => bench.run()).toThrow("The stream ended in state DISCARD");
    expect(bench.life).toEqual([]);
  });
});
