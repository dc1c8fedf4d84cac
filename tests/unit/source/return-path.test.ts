import { describe, expect, test } from "bun:test";
import { IP, TCP } from "../../../syscalls/abi/socket.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { Channel } from "../../../src/channel/channel.ts";
import { SOURCE } from "../../../src/report/counters.ts";
import { oweDirty } from "../../../src/source/owed.ts";
import { RequestServer } from "../../../src/source/request-server.ts";
import { runReturnPath } from "../../../src/source/return-path.ts";
import { TIME, WORD } from "../../../src/source/shared.ts";
import { answerValue, FEATURES_OURS, helloValue, PONG_RUNNING } from "../../../src/stream/hello.ts";
import { writeReturnPathMessage } from "../../../src/stream/return-path.ts";
import type { ReturnPathMessage } from "../../../src/stream/return-path.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { PageReceiver } from "../../helpers/page-receiver.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

const PAGE = 4096;
const SHUT: ReturnPathMessage = { kind: "shut", status: 0 };

function request(block: string | undefined, page: number, length = PAGE): ReturnPathMessage {
  return { kind: "pageRequest", block, start: page * PAGE, length };
}

/** A source whose pages are all owed, and the destination's end of its connection. */
class Bench implements Disposable {
  readonly descriptors = new Descriptors();
  readonly guest: SendingGuest;
  readonly peer: Channel;
  readonly receiver: PageReceiver;
  readonly #channel: Channel;
  readonly #option = mapScratch(8);
  readonly #server: RequestServer;

  constructor({ pageSize = PAGE, serving = true, tcp = false } = {}) {
    this.guest = new SendingGuest([16, 8], pageSize);
    const { blocks, shared } = this.guest;
    const [fd, peerFd] = tcp ? this.descriptors.tcpPair() : this.descriptors.pair();
    const stopFd = this.descriptors.event();
    const open = (each: number): Channel =>
      new Channel({ fd: each, stopFd, peer: "the destination", bufferBytes: 2 ** 18 });
    this.#channel = open(fd);
    this.#channel.timeoutMs = 5000;
    this.peer = open(peerFd);
    this.peer.timeoutMs = 5000;
    this.receiver = new PageReceiver(this.peer, blocks);
    const context = sourceContext(blocks, shared, this.#channel, stopFd);
    for (const bitmap of shared.dirty) bitmap.setAll();
    oweDirty(context);
    Atomics.store(shared.control, WORD.serving, serving ? 1 : 0);
    // As if everything had been sent: otherwise SHUT could not say that all is well.
    Atomics.store(shared.control, WORD.ended, 1);
    this.#server = new RequestServer(context, blocks);
  }

  /** TCP_QUICKACK of the source's end: 0 where an acknowledgement waits for what is sent. */
  get acknowledgesAtOnce(): number {
    const { address, view } = this.#option;
    view.setUint32(4, 4, true);
    const fd = this.#channel.fd;
    const { IPPROTO_TCP } = IP;
    expect(syscall(NR.getsockopt, fd, IPPROTO_TCP, TCP.TCP_QUICKACK, address, address + 4)).toBe(0);
    return view.getInt32(0, true);
  }

  set acknowledgesAtOnce(value: number) {
    const { address, view } = this.#option;
    view.setInt32(0, value, true);
    const fd = this.#channel.fd;
    expect(syscall(NR.setsockopt, fd, IP.IPPROTO_TCP, TCP.TCP_QUICKACK, address, 4)).toBe(0);
  }

  say(...messages: ReturnPathMessage[]): void {
    const writer = new StreamWriter();
    for (const message of messages) writeReturnPathMessage(writer, message);
    this.peer.write(writer.bytes);
  }

  /** Says `messages` and lets the return path read them. */
  run(...messages: ReturnPathMessage[]): void {
    if (messages.length > 0) this.say(...messages);
    const { blocks, shared } = this.guest;
    runReturnPath({
      channel: this.#channel,
      shared,
      blocks,
      server: this.#server,
      favour: { turn: () => undefined, beFirst: () => undefined },
    });
  }

  /** The code that the return path ends with. */
  failure(...messages: ReturnPathMessage[]): string {
    try {
      this.run(...messages);
    } catch (error) {
      if (error instanceof Error && "code" in error) return String(error.code);
      throw error;
    }
    return "none";
  }

  count(counter: keyof typeof SOURCE): number {
    return this.guest.shared.counters.get(SOURCE[counter]);
  }

  word(word: keyof typeof WORD): number {
    return Atomics.load(this.guest.shared.control, WORD[word]);
  }

  [Symbol.dispose](): void {
    this.descriptors[Symbol.dispose]();
    this.guest[Symbol.dispose]();
  }
}

describe("page requests", () => {
  test("are answered in the order they came, of the block that was named last", () => {
    using bench = new Bench();
    bench.run(request("block1", 3), request(undefined, 1), request("block0", 15), SHUT);
    bench.receiver.main(3);
    expect(bench.receiver.pages.map(({ block, page }) => [block, page])).toEqual([
      [1, 3],
      [1, 1],
      [0, 15],
    ]);
    expect(bench.count("requestsServed")).toBe(3);
    expect(bench.guest.shared.requestTimes.summary().count).toBe(3);
  });

  test("for what is on its way already are counted and not answered", () => {
    using bench = new Bench();
    bench.run(request("block0", 3), request("block0", 3), request(undefined, 3), SHUT);
    bench.receiver.main(1);
    const counts = [bench.count("requestsReceived"), bench.count("requestsDuplicate")];
    expect([...counts, bench.count("requestsServed")]).toEqual([3, 2, 1]);
    expect(bench.peer.tryRead()).toBe(0);
  });

  test("are refused where they cannot be meant", () => {
    const cases: [what: string, pageSize: number, ...messages: ReturnPathMessage[]][] = [
      ["no block was named", PAGE, request(undefined, 0)],
      ["no such block", PAGE, request("block2", 0)],
      ["behind the end", PAGE, request("block1", 8)],
      ["beyond the end", PAGE, request("block1", 7, 2 * PAGE)],
      ["part of a page", PAGE, request("block1", 0.5)],
      ["a length that is no page", PAGE, request("block1", 0, 100)],
      ["part of a huge page", 4 * PAGE, request("block1", 1, 4 * PAGE)],
      ["less than a huge page", 4 * PAGE, request("block1", 4, PAGE)],
    ];
    for (const [what, pageSize, ...messages] of cases) {
      using bench = new Bench({ pageSize });
      expect([what, bench.failure(...messages, SHUT)]).toEqual([what, "BAD_REQUEST"]);
      expect(bench.guest.shared.finished.isSet).toBe(true);
      expect(bench.peer.tryRead()).toBe(0);
    }
  });

  test("are refused before the switchover, when the guest still writes to its pages", () => {
    using bench = new Bench({ serving: false });
    expect(bench.failure(request("block0", 0), SHUT)).toBe("BAD_REQUEST");
  });
});

describe("the return path", () => {
  test("ends with SHUT, whose status is kept", () => {
    for (const [status, kept] of [
      [0, 0],
      [1, 1],
      [0xffff_ffff, 0x7fff_ffff],
    ] as const) {
      using bench = new Bench();
      expect(bench.word("shutStatus")).toBe(-1);
      bench.run({ kind: "shut", status });
      expect(bench.word("shutStatus")).toBe(kept);
      expect(bench.guest.shared.finished.isSet).toBe(true);
    }
  });

  test("does not believe that all is well before everything was sent", () => {
    using bench = new Bench();
    Atomics.store(bench.guest.shared.control, WORD.ended, 0);
    expect(bench.failure(SHUT)).toBe("UNEXPECTED");
    expect(bench.word("shutStatus")).toBe(-1);
    expect(bench.guest.shared.finished.isSet).toBe(true);
  });

  test("that breaks is finished, too", () => {
    using bench = new Bench();
    bench.descriptors.close(bench.peer.fd);
    const { blocks, shared } = bench.guest;
    expect(blocks).toHaveLength(2);
    expect(() => bench.run()).toThrow("The connection was closed by the destination");
    expect(shared.finished.isSet).toBe(true);
    expect(bench.word("shutStatus")).toBe(-1);
  });

  test("knows one of ours by its answer, and a QEMU by its echo", () => {
    using ours = new Bench();
    ours.run({ kind: "pong", value: answerValue(FEATURES_OURS) }, SHUT);
    expect(ours.word("peerFeatures")).toBe(FEATURES_OURS);
    expect(ours.guest.shared.peerKnown.isSet).toBe(true);
    using qemu = new Bench();
    qemu.run({ kind: "pong", value: helloValue(FEATURES_OURS) }, SHUT);
    expect(qemu.word("peerFeatures")).toBe(0);
    expect(qemu.guest.shared.times[TIME.helloAnswered]).toBeGreaterThan(0);
    using other = new Bench();
    other.run({ kind: "pong", value: 4 }, { kind: "pong", value: 0x42 }, SHUT);
    expect(other.word("peerFeatures")).toBe(-1);
    expect(other.guest.shared.peerKnown.isSet).toBe(false);
  });

  test("acknowledges at once what a QEMU sends, which waits for that, and nothing else", () => {
    for (const [features, acknowledged] of [
      [0, 1],
      [FEATURES_OURS, 0],
      [-1, 0],
    ] as const) {
      using bench = new Bench({ tcp: true });
      Atomics.store(bench.guest.shared.control, WORD.peerFeatures, features);
      bench.acknowledgesAtOnce = 0;
      bench.run(SHUT);
      expect([features, bench.acknowledgesAtOnce]).toEqual([features, acknowledged]);
    }
  });

  test("notes when the device state was loaded and when the guest ran", () => {
    using bench = new Bench();
    bench.run({ kind: "pong", value: 3 }, { kind: "pong", value: PONG_RUNNING }, SHUT);
    const { times } = bench.guest.shared;
    expect(times[TIME.loaded]).toBeGreaterThan(0);
    expect(times[TIME.running]).toBeGreaterThanOrEqual(times[TIME.loaded] ?? 0);
  });

  test("refuses what nobody asked for", () => {
    using bench = new Bench();
    expect(bench.failure({ kind: "resumeAck" }, SHUT)).toBe("UNEXPECTED");
    using acknowledged = new Bench();
    expect(acknowledged.failure({ kind: "switchoverAck" }, SHUT)).toBe("none");
  });
});

test("why the destination hung up is heard behind a request that cannot be answered any more", () => {
  for (const [last, failure, status] of [
    [{ kind: "shut", status: 2 }, "none", 2],
    // That all is well it cannot say there, and what else it asks for is nobody's concern.
    [SHUT, "PEER_CLOSED", -1],
    [request("block1", 1), "PEER_CLOSED", -1],
  ] as const) {
    using bench = new Bench();
    const [fd, other] = bench.descriptors.pair();
    bench.descriptors.close(other);
    Atomics.store(bench.guest.shared.control, WORD.urgentFd, fd);
    bench.say(request("block0", 3), request("block0", 5), last);
    bench.descriptors.close(bench.peer.fd);
    expect(bench.failure()).toBe(failure);
    expect(bench.word("shutStatus")).toBe(status);
    expect(bench.guest.shared.finished.isSet).toBe(true);
  }
});

test("what a QEMU had loaded by then is heard as well: a refusal behind that is none", () => {
  using bench = new Bench();
  const [fd, other] = bench.descriptors.pair();
  bench.descriptors.close(other);
  Atomics.store(bench.guest.shared.control, WORD.urgentFd, fd);
  bench.say(request("block0", 3), { kind: "pong", value: 3 }, { kind: "shut", status: 1 });
  bench.descriptors.close(bench.peer.fd);
  expect(bench.failure()).toBe("none");
  expect(bench.word("shutStatus")).toBe(1);
  expect(bench.guest.shared.times[TIME.loaded]).toBeGreaterThan(0);
});
