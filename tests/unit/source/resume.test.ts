/** Recovery at the source: what the destination lacks is owed again, and nothing else is believed. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Channel } from "../../../src/channel/channel.ts";
import { PageBitmap } from "../../../src/ram/bitmap.ts";
import { targetPages } from "../../../src/ram/block.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { SOURCE } from "../../../src/report/counters.ts";
import { oweMissing } from "../../../src/source/owed.ts";
import { RequestServer } from "../../../src/source/request-server.ts";
import { prepareResume } from "../../../src/source/resume.ts";
import { runReturnPath } from "../../../src/source/return-path.ts";
import { hostPages, WORD } from "../../../src/source/shared.ts";
import {
  writeReceivedBitmapEnd,
  writeReceivedBitmapStart,
} from "../../../src/stream/received-bitmap.ts";
import { writeReturnPathMessage } from "../../../src/stream/return-path.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

const PAGE = 4096;

describe("what is missing", () => {
  test("is owed, by whole host pages, and nothing more", () => {
    const shape = fc.record({
      pages: fc.integer({ min: 1, max: 200 }),
      perHostPage: fc.constantFrom(1, 4, 64),
    });
    fc.assert(
      fc.property(shape, fc.array(fc.nat(199)), fc.boolean(), (of, some, mostly) => {
        const { pages, perHostPage } = of;
        const pageSize = perHostPage * PAGE;
        const block: RamBlock = {
          index: 0,
          name: "ram",
          length: pages * PAGE,
          pageSize,
          address: 0,
        };
        const received = new PageBitmap(targetPages(block));
        if (mostly) received.setAll();
        for (const page of some.filter((each) => each < pages)) {
          if (mostly) received.claim(page);
          else received.set(page);
        }
        const owed = new PageBitmap(hostPages(block));
        // What was owed before does not matter.
        owed.setAll();
        oweMissing(block, received, owed);
        for (let hostPage = 0; hostPage < owed.pages; hostPage++) {
          const first = hostPage * perHostPage;
          const end = Math.min(pages, first + perHostPage);
          expect(owed.test(hostPage)).toBe(received.nextClear(first, end) < end);
        }
      }),
    );
  });
});

/** A source that has asked for bitmaps; the test says what the destination answers. */
class Bench implements Disposable {
  readonly guest = new SendingGuest([16, 8]);
  readonly #descriptors = new Descriptors();
  readonly #peer: Channel;
  readonly #channel: Channel;
  readonly #server: RequestServer;

  constructor() {
    const { blocks, shared } = this.guest;
    const [fd, peerFd] = this.#descriptors.pair();
    const stopFd = this.#descriptors.event();
    const open = (each: number): Channel =>
      new Channel({ fd: each, stopFd, peer: "the other end", bufferBytes: 2 ** 16 });
    this.#channel = open(fd);
    this.#peer = open(peerFd);
    this.#channel.timeoutMs = 5000;
    this.#server = new RequestServer(sourceContext(blocks, shared, this.#channel, stopFd), blocks);
    prepareResume(shared, blocks);
  }

  /** A bitmap of a block with these pages received; the mark can be wrong. */
  static bitmap(block: RamBlock, received: readonly number[], rightMark = true): Uint8Array {
    const writer = new StreamWriter();
    const bitmap = new PageBitmap(targetPages(block));
    for (const page of received) bitmap.set(page);
    writeReceivedBitmapStart(writer, block.name, targetPages(block));
    writer.raw(new Uint8Array(bitmap.shared).slice());
    if (rightMark) writeReceivedBitmapEnd(writer);
    else writer.u32(0).u32(0);
    return writer.bytes.slice();
  }

  static message(kind: "resumeAck"): Uint8Array {
    const writer = new StreamWriter();
    writeReturnPathMessage(writer, { kind });
    return writer.bytes.slice();
  }

  /** Has the return path read `parts` and the end of the connection; what that came to. */
  read(...parts: Uint8Array[]): string {
    for (const part of parts) this.#peer.write(part);
    this.#descriptors.close(this.#peer.fd);
    const { blocks, shared } = this.guest;
    try {
      const favour = { turn: (): void => undefined, beFirst: (): void => undefined };
      runReturnPath({ channel: this.#channel, shared, blocks, server: this.#server, favour });
      return "ended";
    } catch (error) {
      return error instanceof Error && "code" in error ? String(error.code) : String(error);
    }
  }

  /** Host pages of a block that are owed. */
  owed(index: number): number[] {
    const bitmap = this.guest.shared.owed[index];
    const all = Array.from({ length: bitmap?.pages ?? 0 }, (_, page) => page);
    return all.filter((page) => bitmap?.test(page));
  }

  [Symbol.dispose](): void {
    this.#descriptors[Symbol.dispose]();
    this.guest[Symbol.dispose]();
  }
}

describe("the answers of a destination that recovers", () => {
  test("say what is owed, block by block in any order, and that it resumes", () => {
    using bench = new Bench();
    const { guest } = bench;
    const all = Array.from({ length: 16 }, (_, page) => page);
    const most = all.filter((page) => page !== 3 && page !== 15);
    const bitmaps = [Bench.bitmap(guest.block(1), []), Bench.bitmap(guest.block(0), most)];
    expect(guest.shared.bitmapsKnown.isSet).toBe(false);
    Atomics.store(guest.shared.control, WORD.resumeAwaited, 1);
    expect(bench.read(...bitmaps, Bench.message("resumeAck"))).toBe("PEER_CLOSED");
    expect(bench.owed(0)).toEqual([3, 15]);
    expect(bench.owed(1)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(guest.shared.bitmapsKnown.isSet).toBe(true);
    expect(guest.shared.resumed.isSet).toBe(true);
    expect(guest.shared.finished.isSet).toBe(true);
  });

  test("are not complete while a block is missing", () => {
    using bench = new Bench();
    expect(bench.read(Bench.bitmap(bench.guest.block(0), []))).toBe("PEER_CLOSED");
    expect(bench.guest.shared.bitmapsKnown.isSet).toBe(false);
  });

  test("are refused when they are more than was asked for", () => {
    using bench = new Bench();
    const { guest } = bench;
    const twice = [0, 1, 1].map((index) => Bench.bitmap(guest.block(index), []));
    expect(bench.read(...twice)).toBe("UNEXPECTED");
  });

  test("are refused when RESUME was not sent", () => {
    using bench = new Bench();
    expect(bench.read(Bench.message("resumeAck"))).toBe("UNEXPECTED");
    expect(bench.guest.shared.resumed.isSet).toBe(false);
  });

  test("are refused with a wrong mark, and for a block that is none", () => {
    using bench = new Bench();
    expect(bench.read(Bench.bitmap(bench.guest.block(0), [], false))).toBe("BAD_VALUE");
    using other = new Bench();
    const stranger = { ...other.guest.block(0), name: "no" };
    expect(other.read(Bench.bitmap(stranger, []))).toBe("BAD_REQUEST");
  });
});

test("everything of the first connection is forgotten but the guest and what was counted", () => {
  using bench = new Bench();
  const { shared, blocks } = bench.guest;
  shared.counters.add(SOURCE.pagesPushed, 7);
  for (const event of [shared.finished, shared.peerKnown, shared.bitmapsKnown, shared.resumed]) {
    event.set();
  }
  Atomics.store(shared.control, WORD.shutStatus, 1);
  Atomics.store(shared.control, WORD.ended, 1);
  Atomics.store(shared.control, WORD.serving, 1);
  prepareResume(shared, blocks);
  const states = [shared.finished, shared.peerKnown, shared.bitmapsKnown, shared.resumed];
  expect(states.map(({ isSet }) => isSet)).toEqual([false, false, false, false]);
  const words = [WORD.shutStatus, WORD.peerFeatures, WORD.ended, WORD.serving, WORD.bitmapsAwaited];
  expect(words.map((word) => Atomics.load(shared.control, word))).toEqual([-1, -1, 0, 0, 2]);
  expect(shared.counters.get(SOURCE.pagesPushed)).toBe(7);
});
