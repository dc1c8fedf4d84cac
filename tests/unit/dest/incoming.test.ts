import { describe, expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import type { DestEvent, IncomingContext } from "../../../src/dest/context.ts";
import type { DestGuest } from "../../../src/dest/guest.ts";
import { IncomingLoader } from "../../../src/dest/incoming.ts";
import { createDestShared, DestShared, WORD } from "../../../src/dest/shared.ts";
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
import { StreamError } from "../../../src/util/errors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import {
  advise,
  bytesOf,
  discard,
  eof,
  opening,
  openReturnPath,
  ping,
  ramEnd,
  ramStart,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";

/** A guest that takes everything and runs nothing; what became of it. */
function takeAnyGuest(): { guest: DestGuest; life: string[] } {
  const life: string[] = [];
  const guest: DestGuest = {
    memory: "stored",
    devices: { kind: "modelled", load: () => undefined },
    configure: () => undefined,
    prepareMemory: (setup) => setup.map((block, index) => ({ ...block, index, address: 0 })),
    storeSink: () => ({ pages: () => undefined, zeros: () => undefined }),
    sinkData: () => undefined,
    run: () => void life.push("runs"),
    finish: () => void life.push("is whole"),
  };
  return { guest, life };
}

class IncomingBench implements Disposable {
  readonly shared = new DestShared(createDestShared());
  readonly events: DestEvent[] = [];
  readonly sent: ReturnPathMessage[] = [];
  readonly life: string[];
  readonly context: IncomingContext;
  readonly #descriptors = new Descriptors();
  readonly #sourceFd: number;

  /** `broken` says which messages of the return path the link fails to carry. */
  constructor(broken: (message: ReturnPathMessage) => boolean = () => false) {
    const [fd, sourceFd] = this.#descriptors.pair();
    this.#sourceFd = sourceFd;
    const stopFd = this.#descriptors.event();
    const { guest, life } = takeAnyGuest();
    this.life = life;
    this.context = {
      channel: new Channel({ fd, stopFd, peer: "the source", bufferBytes: 65_536 }),
      returnPath: {
        send: (message) => {
          if (broken(message)) throw new StreamError("BROKEN", "The link broke");
          this.sent.push(message);
        },
      },
      guest,
      shared: this.shared,
      features: FEATURES_OURS,
      handshakeTimeoutMs: 5000,
      multifd: undefined,
      lockMemory: false,
      announceMemory: () => undefined,
      emit: (event) => void this.events.push(event),
    };
  }

  /** What the source says, all at once. */
  feed(...pieces: readonly Piece[]): this {
    const bytes = bytesOf(...pieces);
    expect(writeBytes(this.#sourceFd, bytes)).toBe(bytes.length);
    return this;
  }

  run() {
    return new IncomingLoader(this.context).run();
  }

  get warnings(): string[] {
    return this.events.flatMap((event) => (event.kind === "warning" ? [event.message] : []));
  }

  [Symbol.dispose](): void {
    this.#descriptors[Symbol.dispose]();
  }
}

const TOKEN = 0xdead_beef;
/** The pings of a source that has chosen all there is. */
const CHOSEN: readonly Piece[] = [...tokenValues(TOKEN), chosenValue(FEATURES_OURS)].map(ping);
const START: readonly Piece[] = [opening(), openReturnPath];
const MEMORY: readonly Piece[] = [ramStart(), ramEnd(zeroPages()), eof];

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

describe("a source that falls silent", () => {
  test("before the list of RAM blocks is not waited for for ever", () => {
    using bench = new IncomingBench();
    bench.context.handshakeTimeoutMs = 30;
    bench.feed((writer) => writer.u32(0x5145_564d));
    expect(() => bench.run()).toThrow("the source sent nothing for 0 s");
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

  test("may not choose one without a token", () => {
    using bench = new IncomingBench();
    const [high] = tokenValues(TOKEN);
    bench.feed(...START, ping(high), ping(chosenValue(FEATURES_OURS)), ...MEMORY);
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
    bench.feed(...START, advise(), ramStart(), ramEnd(zeroPages()), discard(), eof);
    expect(() => bench.run()).toThrow("The stream ended in state DISCARD");
    expect(bench.life).toEqual([]);
  });
});
