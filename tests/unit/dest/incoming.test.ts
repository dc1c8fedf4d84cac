import { describe, expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import type { DestEvent, IncomingContext } from "../../../src/dest/context.ts";
import type { DestGuest } from "../../../src/dest/guest.ts";
import { IncomingLoader } from "../../../src/dest/incoming.ts";
import { FATE, refuseGuest } from "../../../src/dest/refusal.ts";
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
import { identityPings, newIdentity } from "../../../src/stream/identity.ts";
import { scanPackageTail } from "../../../src/stream/package.ts";
import type { ReturnPathMessage } from "../../../src/stream/return-path.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import {
  BEFORE_PACKAGE,
  advise,
  bytesOf,
  description,
  discard,
  eof,
  listen,
  opening,
  openReturnPath,
  packaged,
  ping,
  ramEnd,
  ramStart,
  unknownDevice,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
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

/** A guest that takes everything and runs nothing; what became of it. */
function takeAnyGuest(): { guest: DestGuest; life: string[] } {
  const life: string[] = [];
  const guest: DestGuest = {
    memory: "stored",
    devices: { kind: "modelled", load: () => undefined, complete: () => undefined },
    configure: () => undefined,
    prepareMemory: (setup) => setup.map((block, index) => ({ ...block, index, address: 0 })),
    storeSink: () => ({ pages: () => undefined, zeros: () => undefined }),
    sinkData: () => undefined,
    run: () => void life.push("runs"),
    finish: () => void life.push("is whole"),
  };
  return { guest, life };
}

/** A guest that is kept, and does `atTheEnd` before it is. */
function keepAnyGuest(life: string[], atTheEnd: () => void = () => {}): Partial<DestGuest> {
  const keep = (bytes: Uint8Array, text = "nothing"): void => {
    life.push(`package of ${scanPackageTail(bytes).devicesEnd} bytes, described by ${text}`);
  };
  const finish = (commit: () => void): void => {
    atTheEnd();
    commit();
    life.push("is whole");
  };
  return { devices: { kind: "opaque", keep }, finish };
}

class IncomingBench implements Disposable {
  readonly shared = new DestShared(createDestShared());
  readonly events: DestEvent[] = [];
  readonly sent: ReturnPathMessage[] = [];
  readonly life: string[];
  readonly context: IncomingContext;
  readonly #descriptors = new Descriptors();
  readonly sourceFd: number;

  /** `broken` says which messages of the return path the link fails to carry. */
  constructor(broken: (message: ReturnPathMessage) => boolean = () => false) {
    const [fd, sourceFd] = this.#descriptors.pair();
    this.sourceFd = sourceFd;
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
        addRequest: () => undefined,
        flushRequests: () => undefined,
      },
      guest,
      shared: this.shared,
      features: FEATURES_OURS,
      linkTimeoutMs: 5000,
      othersMayCome: false,
      multifd: undefined,
      lockMemory: false,
      announceMemory: () => undefined,
      emit: (event) => void this.events.push(event),
    };
  }

  /** What the source says, all at once. */
  feed(...pieces: readonly Piece[]): this {
    const bytes = bytesOf(...pieces);
    expect(writeBytes(this.sourceFd, bytes)).toBe(bytes.length);
    return this;
  }

  /** Closes the end that is under test. */
  closeOurs(): void {
    this.#descriptors.close(this.context.channel.fd);
  }

  /** Nothing more will come. */
  hangUp(): this {
    this.#descriptors.close(this.sourceFd);
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
const IDENTITY = identityPings(newIdentity());
const CHOSEN: readonly Piece[] = [
  ...tokenValues(TOKEN),
  ...IDENTITY,
  chosenValue(FEATURES_OURS),
].map(ping);
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

describe("a guest that completes in precopy and is kept", () => {
  const DEVICES: readonly Piece[] = [unknownDevice(3, "cpu", 1, 2), unknownDevice(4, "pci", 9)];
  const MEMORY_ONLY: readonly Piece[] = [ramStart(), ramEnd(zeroPages())];
  const END: readonly Piece[] = [...DEVICES, eof, description("cpu", "pci")];
  const packageEnd = bytesOf(listen, ...DEVICES).length;
  const told = (shared: DestShared): number => Atomics.load(shared.control, WORD.fate);

  function keeping(atTheEnd?: () => void): IncomingBench {
    const bench = new IncomingBench();
    Object.assign(bench.context.guest, keepAnyGuest(bench.life, atTheEnd));
    return bench;
  }

  test("is whole with its description, and then the source is told", () => {
    using bench = keeping();
    bench.feed(...START, advise(), ...MEMORY_ONLY, ...END);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    const [kept = "", ...rest] = bench.life;
    expect(kept).toStartWith(`package of ${packageEnd} bytes, described by {"page_size":4096,`);
    expect(rest).toEqual(["is whole"]);
    expect(bench.sent).toEqual([{ kind: "shut", status: 0 }]);
    expect(bench.events).not.toContainEqual({ kind: "running" });
    expect(bench.context.channel.timeoutMs).toBe(Infinity);
  });

  test("needs neither ADVISE nor a way back", () => {
    using bench = keeping();
    bench.feed(opening(), ...MEMORY_ONLY, ...END);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    expect(bench.life).toHaveLength(2);
    expect(bench.sent).toEqual([]);
  });

  test("needs no description of a source that closes", () => {
    using bench = keeping();
    bench.feed(opening(), ...MEMORY_ONLY, ...DEVICES, eof).hangUp();
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    expect(bench.life[0]).toBe(`package of ${packageEnd} bytes, described by nothing`);
  });

  test("without a description of one that stays is refused after a while", () => {
    using bench = keeping();
    bench.context.linkTimeoutMs = 30;
    bench.feed(...START, ...MEMORY_ONLY, ...DEVICES, eof);
    expect(() => bench.run()).toThrow("sends no description of its device state");
    expect(bench.sent.at(-1)).toEqual({ kind: "shut", status: 1 });
    expect(bench.life).toEqual([]);
  });

  test("is refused when the source falls silent, or goes, within device state", () => {
    for (const goes of [true, false]) {
      using bench = keeping();
      bench.context.linkTimeoutMs = 30;
      bench.feed(...START, ...MEMORY_ONLY, ...DEVICES, eof, (writer) => writer.u8(6));
      if (goes) bench.hangUp();
      expect(() => bench.run()).toThrow(goes ? "The stream ends within" : "sent nothing for 30 ms");
      expect(bench.life).toEqual([]);
    }
  });

  test("stays the source's when it cannot be made durable", () => {
    using bench = keeping(() => {
      throw new StreamError("NO_SPACE", "No space");
    });
    bench.feed(...START, ...MEMORY_ONLY, ...END);
    expect(() => bench.run()).toThrow("No space");
    expect(told(bench.shared)).toBe(FATE.told);
    expect(bench.sent).toEqual([{ kind: "shut", status: 1 }]);
  });

  test("stays the source's when it is given up before it is named", () => {
    const refuse = { now: (): unknown => undefined };
    using bench = keeping(() => refuse.now());
    refuse.now = () => refuseGuest(bench.shared);
    bench.feed(...START, ...MEMORY_ONLY, ...END);
    expect(() => bench.run()).toThrow("Stopped on request");
    expect(bench.life).toHaveLength(1);
    expect(bench.sent).toEqual([{ kind: "shut", status: 1 }]);
  });

  test("goes on at a source that cannot be told that it is whole", () => {
    using bench = new IncomingBench(({ kind }) => kind === "shut");
    Object.assign(bench.context.guest, keepAnyGuest(bench.life));
    bench.feed(...START, ...MEMORY_ONLY, ...END);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    expect(bench.warnings).toEqual([
      "The source was not told that the guest is whole here, and lets it go on: The link broke",
    ]);
  });

  test("may not have discarded anything", () => {
    using bench = keeping();
    bench.feed(...START, advise(), ramStart(), discard(), ramEnd(zeroPages()), ...END);
    expect(() => bench.run()).toThrow("The stream ended in state DISCARD");
  });

  test("has no command behind its memory", () => {
    using bench = keeping();
    bench.feed(...START, advise(), ...MEMORY_ONLY, discard(), ...END);
    const what = "POSTCOPY_RAM_DISCARD came after guest memory had ended";
    expect(() => bench.run()).toThrow(what);
  });

  test("is none of this program's own guests, and none without devices", () => {
    using ours = keeping();
    ours.feed(...START, ...CHOSEN, ...MEMORY_ONLY, ...DEVICES, eof);
    expect(() => ours.run()).toThrow("this program's own guests cannot be kept that way");
    using bare = keeping();
    bare.feed(...START, ...MEMORY);
    expect(() => bare.run()).toThrow("The stream ended without the guest's device state");
  });

  test("has no device ahead of its memory", () => {
    using bench = keeping();
    bench.feed(...START, unknownDevice(1, "virtio-mem-device-early"), ...MEMORY_ONLY);
    expect(() => bench.run()).toThrow(
      'The state of "virtio-mem-device-early" comes before the end',
    );
  });
});
