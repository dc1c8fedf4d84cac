/** A stream into the memory of a VMM, which is memory of this process here: who may send it, and when. */
import { describe, expect, spyOn } from "bun:test";
import { setThreadNice } from "../../../syscalls/process.ts";
import { threadNice } from "../../../syscalls/scheduling.ts";
import { replaceDescriptor } from "../../../syscalls/descriptor.ts";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { Channel } from "../../../src/channel/channel.ts";
import type { GuestMemory, IncomingContext } from "../../../src/dest/context.ts";
import { isBound } from "../../../src/dest/identity.ts";
import { IncomingLoader } from "../../../src/dest/incoming.ts";
import {
  attachPageState,
  createDestShared,
  DestShared,
  HELD,
  WORD,
} from "../../../src/dest/shared.ts";
import { UffdDestGuest } from "../../../src/guests/uffd/dest-guest.ts";
import { KeptState } from "../../../src/guests/uffd/kept-state.ts";
import type { Region } from "../../../src/guests/uffd/handover.ts";
import { chosenValue, FEATURE, helloValue, tokenValues } from "../../../src/stream/hello.ts";
import { destPhase } from "../../../src/report/summary.ts";
import { identityOfText, identityPings, PONG_OTHER_GUEST } from "../../../src/stream/identity.ts";
import type { ReturnPathMessage } from "../../../src/stream/return-path.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import {
  advise,
  bytesOf,
  discard,
  HAND_MADE_BLOCK,
  listen,
  opening,
  openReturnPath,
  packaged,
  page,
  ping,
  ramPart,
  ramStart,
  run,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { UserfaultMemory } from "../../helpers/userfault-memory.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";

const PAGE = 4096;
const foreignTest = requireOrSkip(needUserfaultfd());

const HELLO: readonly Piece[] = [
  opening("pc"),
  openReturnPath,
  ping(helloValue(FEATURE.smallPages)),
  advise(),
  ramStart(),
];
const CHOSEN = ping(chosenValue(FEATURE.smallPages));

interface BenchOptions {
  othersMayCome?: boolean;
  /** Where the VMM's memory begins in the source's, in pages. */
  offset?: number;
  /** Another process was killed at this VMM, and knew a block of this name. */
  keptBlock?: string;
}

/** A VMM with `pages` of the 16 pages that the source has, and all that reads the stream. */
class ForeignBench implements Disposable {
  readonly shared = new DestShared(createDestShared());
  readonly memory: UserfaultMemory;
  readonly requests: number[] = [];
  /** What the source is told beside them. */
  readonly sent: ReturnPathMessage[] = [];
  /** The state that outlives the process. */
  kept: KeptState | undefined;
  readonly #context: IncomingContext;
  readonly #descriptors = new Descriptors();
  #sourceFd: number;
  #loader: IncomingLoader | undefined;
  readonly #nice = threadNice();
  announced: GuestMemory | undefined;
  /** Called when the other threads could be at work. */
  prepared: () => void = () => {};

  constructor(pages: number, options: BenchOptions = {}) {
    const { othersMayCome = false, offset = 0, keptBlock } = options;
    this.memory = new UserfaultMemory(pages, UFFD.UFFD_FEATURE_EVENT_REMOVE);
    const [fd, sourceFd] = this.#descriptors.pair();
    this.#sourceFd = sourceFd;
    const { address } = this.memory;
    const regions = [{ address, length: pages * PAGE, offset: offset * PAGE, pageSize: PAGE }];
    const userfaultFd = this.memory.userfault.fd;
    const keptFd = keptBlock === undefined ? undefined : this.#keep(regions, keptBlock);
    const guest = new UffdDestGuest({ regions, userfaultFd }, keptFd);
    const stopFd = this.#descriptors.event();
    this.#context = {
      channel: new Channel({ fd, stopFd, peer: "the source", bufferBytes: 65_536 }),
      returnPath: {
        send: (message) => void this.sent.push(message),
        addRequest: (_, start) => void this.requests.push(start / PAGE),
        flushRequests: () => undefined,
      },
      ...{ guest, shared: this.shared, features: guest.needs, linkTimeoutMs: 5000, othersMayCome },
      ...{ multifd: undefined, lockMemory: false, emit: () => undefined },
      announceMemory: (memory) => {
        this.announced = memory;
        this.prepared();
      },
    };
    // The other threads are ready at once, and done with all that comes behind LISTEN.
    const { faultThreadSem, listenThreadSem, listenDone } = this.shared;
    for (const each of [faultThreadSem, listenThreadSem, listenDone]) each.post();
  }

  /** The state that a process leaves which was sent that block. */
  #keep(regions: readonly Region[], name: string): number {
    const kept = (this.kept = KeptState.begin(process.pid, regions));
    this.#descriptors.add(kept.fd);
    kept.prepare([{ index: 0, name, length: 16 * PAGE, pageSize: PAGE, address: 0 }]);
    return kept.fd;
  }

  /** What a source that says this, and is lost then, comes to. */
  take(...pieces: readonly Piece[]) {
    const bytes = bytesOf(...pieces);
    expect(writeBytes(this.#sourceFd, bytes)).toBe(bytes.length);
    this.#descriptors.close(this.#sourceFd);
    if (this.#loader?.hasBegun !== true) this.#loader = new IncomingLoader(this.#context);
    const outcome = this.#loader.run();
    if ("turnedAway" in outcome) this.#connectNext();
    return outcome;
  }

  #connectNext(): void {
    const { channel } = this.#context;
    const [fd, sourceFd] = this.#descriptors.pair();
    this.#descriptors.release(fd);
    replaceDescriptor(channel.fd, fd);
    channel.startOver("the next source");
    this.#sourceFd = sourceFd;
  }

  codeOf(...pieces: readonly Piece[]): string {
    try {
      this.take(...pieces);
    } catch (error) {
      if (error instanceof StreamError) return error.code;
      throw error;
    }
    throw new Error("it was taken");
  }

  received(at: number): boolean {
    return this.pages.received[0]?.test(at) === true;
  }

  get pages() {
    const { announced } = this;
    if (announced === undefined) throw new Error("the list of blocks never came");
    return attachPageState(announced.pages, announced.blocks);
  }

  [Symbol.dispose](): void {
    // This thread is favoured from the switchover on, and has more tests to run.
    setThreadNice(this.#nice);
    this.memory[Symbol.dispose]();
    this.#descriptors[Symbol.dispose]();
  }
}

const WHOLE = packaged(listen, run);

/** What a source says of the guest of this name, up to its discards. */
function telling(name: string): Piece[] {
  const chosen = ping(chosenValue(FEATURE.smallPages | FEATURE.identity));
  return [...HELLO, ...identityPings(identityOfText(name)).map(ping), chosen, discard()];
}

describe("the memory of a VMM", () => {
  foreignTest("is not filled by a QEMU, whose guest runs", () => {
    using bench = new ForeignBench(16);
    expect(bench.codeOf(opening("pc"), openReturnPath, ping(1), advise(), ramStart())).toBe(
      "LIVE_SOURCE",
    );
  });

  foreignTest("nor by a stress guest", () => {
    using bench = new ForeignBench(16);
    expect(bench.codeOf(opening(), openReturnPath)).toBe("LIVE_SOURCE");
  });

  foreignTest("whose source has too little of it waits for another one", () => {
    using bench = new ForeignBench(16, { othersMayCome: true, offset: 1 });
    expect(bench.take(...HELLO)).toMatchObject({ turnedAway: { code: "REGION_BEYOND_MEMORY" } });
  });

  foreignTest("nor ends it a source of more memory than this host can keep count of", () => {
    using bench = new ForeignBench(16, { othersMayCome: true });
    const [huge] = [{ name: HAND_MADE_BLOCK, length: 2 ** 47, pageSize: PAGE }];
    const words = [...HELLO.slice(0, -1), ramStart([huge])];
    expect(bench.take(...words)).toMatchObject({ turnedAway: { code: "NO_MEMORY" } });
  });

  foreignTest("nor one of other blocks than the source that began", () => {
    using other = new ForeignBench(16, { othersMayCome: true, keptBlock: "pc.ram" });
    expect(other.take(...HELLO)).toMatchObject({ turnedAway: { code: "OTHER_BLOCKS" } });
    using same = new ForeignBench(16, { othersMayCome: true, keptBlock: HAND_MADE_BLOCK });
    expect(same.take(...HELLO, CHOSEN, discard(), WHOLE)).toEqual({ completedIn: "postcopy" });
  });

  foreignTest("takes pages ahead of LISTEN, each once", () => {
    using bench = new ForeignBench(16);
    const ahead = ramPart(page(3 * PAGE, 7), page(4 * PAGE));
    expect(bench.take(...HELLO, CHOSEN, discard(), ahead, WHOLE)).toEqual({
      completedIn: "postcopy",
    });
    expect(bench.memory.bytes(3).every((byte) => byte === 7)).toBe(true);
    expect(bench.memory.bytes(4).every((byte) => byte === 0)).toBe(true);
    expect(Atomics.load(bench.shared.control, WORD.missing)).toBe(14);
  });

  foreignTest("is not told that a page which is there has changed", () => {
    using bench = new ForeignBench(16);
    const again = discard(HAND_MADE_BLOCK, { start: 3 * PAGE, length: PAGE });
    const ahead = ramPart(page(3 * PAGE, 7));
    expect(bench.codeOf(...HELLO, CHOSEN, discard(), ahead, again)).toBe("LIVE_SOURCE");
  });

  foreignTest("lacks only what the VMM has memory for", () => {
    using bench = new ForeignBench(5, { offset: 2 });
    bench.take(...HELLO, CHOSEN, discard(), WHOLE);
    expect(Atomics.load(bench.shared.control, WORD.missing)).toBe(5);
    const removed = bench.pages.removed[0];
    expect([1, 2, 6, 7].map((at) => removed?.test(at))).toEqual([true, false, false, true]);
  });

  foreignTest("needs its page size chosen, and all of it to be owed", () => {
    using first = new ForeignBench(16);
    expect(first.codeOf(...HELLO, ping(chosenValue(0)), discard(), WHOLE)).toBe("PAGE_SIZE");
    using second = new ForeignBench(16);
    const some = discard(HAND_MADE_BLOCK, { start: 0, length: PAGE });
    expect(second.codeOf(...HELLO, CHOSEN, some, WHOLE)).toBe("UNEXPECTED");
    // Nor was any of it zeros for a moment, to a VMM that runs.
    for (const bits of [second.pages.unpopulated[0], second.pages.received[0]]) {
      expect(bits?.count()).toBe(0);
    }
  });

  foreignTest(
    "waits for another source where one is lost before LISTEN, and forgets nothing",
    () => {
      using bench = new ForeignBench(16, { othersMayCome: true });
      const { control } = bench.shared;
      const begin = [...HELLO, CHOSEN, discard()];
      const lost = bench.take(...begin, ramPart(page(3 * PAGE, 7), page(4 * PAGE)));
      expect(lost).toMatchObject({ turnedAway: { code: "PEER_CLOSED" } });
      expect(destPhase(bench.shared.counters)).toBe("waiting");
      const { announced, pages } = bench;
      // The guest goes on: it gives a page back, and waits for another one.
      for (const bits of [pages.removed[0], pages.received[0]]) bits?.set(9);
      pages.requestedAt[0]?.set([1], 5);
      const [other] = [{ name: "pc.ram", length: 16 * PAGE, pageSize: PAGE }];
      expect(bench.take(...HELLO.slice(0, -1), ramStart([other]))).toMatchObject({
        turnedAway: { code: "OTHER_BLOCKS" },
      });
      expect(bench.take(...HELLO.slice(0, -1), CHOSEN, WHOLE)).toMatchObject({
        turnedAway: { code: "WRONG_STATE" },
      });
      const ahead = ramPart(page(3 * PAGE, 8), page(6 * PAGE, 8), page(9 * PAGE, 8));
      expect(bench.take(...begin, ahead, WHOLE)).toEqual({ completedIn: "postcopy" });
      expect(bench.announced).toBe(announced);
      expect([3, 6].map((at) => bench.memory.bytes(at)[0])).toEqual([7, 8]);
      expect(Atomics.load(control, WORD.missing)).toBe(13);
      expect(bench.requests).toEqual([5]);
      expect(pages.removed[0]?.test(9)).toBe(true);
    },
  );

  foreignTest("is not bound to a source that was lost before it had sent a page", () => {
    using bench = new ForeignBench(16, { othersMayCome: true, keptBlock: HAND_MADE_BLOCK });
    for (const lost of [telling("another"), [...HELLO, CHOSEN, discard()], telling("a third")]) {
      expect(bench.take(...lost)).toMatchObject({ turnedAway: { code: "PEER_CLOSED" } });
      expect(isBound(bench.shared)).toBe(false);
      expect(() => bench.kept?.requireGuest(identityOfText("ours"))).not.toThrow();
    }
    expect(bench.take(...telling("ours"), WHOLE)).toEqual({ completedIn: "postcopy" });
    expect(bench.kept?.facts.identity).toBe(identityOfText("ours"));
  });

  foreignTest(
    "is bound before the first page is placed, should this process be killed then",
    () => {
      for (const record of [page(3 * PAGE, 7), page(3 * PAGE)]) {
        using bench = new ForeignBench(16, { othersMayCome: true, keptBlock: HAND_MADE_BLOCK });
        const bind = KeptState.prototype.bind;
        const received: boolean[] = [];
        using _spy = spyOn(KeptState.prototype, "bind").mockImplementation(function (
          this: KeptState,
          identity,
        ) {
          received.push(bench.received(3));
          bind.call(this, identity);
        });
        bench.take(...telling("ours"), ramPart(record));
        expect({ received, now: bench.received(3) }).toEqual({ received: [false], now: true });
        expect(bench.kept?.identity).toBe(identityOfText("ours"));
      }
    },
  );

  foreignTest("of a source that does not say which guest it has is bound by one that does", () => {
    using bench = new ForeignBench(16, { othersMayCome: true, keptBlock: HAND_MADE_BLOCK });
    const ahead = ramPart(page(3 * PAGE, 7));
    bench.take(...HELLO, CHOSEN, discard(), ahead);
    expect(() => bench.kept?.requireGuest(identityOfText("ours"))).toThrow("it is not known");
    bench.take(...telling("ours"));
    expect(bench.kept?.identity).toBe(identityOfText("ours"));
    expect(bench.take(...telling("another"))).toMatchObject({
      turnedAway: { code: "OTHER_GUEST" },
    });
  });

  foreignTest("is gone on with by a source of the same guest alone", () => {
    const ours = identityOfText("ours");
    using bench = new ForeignBench(16, { othersMayCome: true, keptBlock: HAND_MADE_BLOCK });
    const ahead = ramPart(page(3 * PAGE, 7));
    expect(bench.take(...telling("ours"), ahead)).toMatchObject({
      turnedAway: { code: "PEER_CLOSED" },
    });
    bench.sent.length = 0;
    expect(bench.take(...telling("another"), ramPart(page(4 * PAGE, 8)))).toMatchObject({
      turnedAway: { code: "OTHER_GUEST" },
    });
    // It has heard it, and is told that nothing came of it.
    expect(bench.sent.slice(-2)).toEqual([
      { kind: "pong", value: PONG_OTHER_GUEST },
      { kind: "shut", status: 1 },
    ]);
    expect(bench.take(...HELLO, CHOSEN)).toMatchObject({ turnedAway: { code: "OTHER_GUEST" } });
    // So it is for another process, should this one be killed now.
    expect(bench.kept?.identity).toBe(ours);
    expect(bench.take(...telling("ours"), ahead, WHOLE)).toEqual({ completedIn: "postcopy" });
    expect([3, 4].map((at) => bench.received(at))).toEqual([true, false]);
  });

  foreignTest("nor by one that chose an urgent channel where it was offered none", () => {
    using bench = new ForeignBench(16, { othersMayCome: true });
    const chosen = ping(chosenValue(FEATURE.smallPages | FEATURE.urgentChannel));
    expect(bench.take(...HELLO, ...tokenValues(1).map(ping), chosen)).toMatchObject({
      turnedAway: { code: "UNEXPECTED" },
    });
    expect(Atomics.load(bench.shared.control, WORD.urgentChosen)).toBe(0);
  });

  foreignTest("nor by one that chose to say which guest it has, and did not", () => {
    using bench = new ForeignBench(16);
    const chosen = ping(chosenValue(FEATURE.smallPages | FEATURE.identity));
    const parts = identityPings(identityOfText("ours")).slice(1).map(ping);
    expect(bench.codeOf(...HELLO, ...parts, chosen)).toBe("UNEXPECTED");
  });

  foreignTest("is asked for from LISTEN on, also what was touched before", () => {
    using bench = new ForeignBench(16);
    const { control } = bench.shared;
    bench.prepared = () => {
      expect(Atomics.load(control, WORD.requestsHeld)).toBe(HELD.untilListen);
      bench.pages.requestedAt[0]?.set([1], 5);
    };
    bench.take(...HELLO, CHOSEN, discard(), WHOLE);
    expect(Atomics.load(control, WORD.requestsHeld)).toBe(HELD.no);
    expect(bench.requests).toEqual([5]);
  });
});
