import { afterEach, describe, expect, test } from "bun:test";
import { openSync } from "node:fs";
import { Channel, ChannelError } from "../../../src/channel/channel.ts";
import type { SourceContext, SourceEvent } from "../../../src/source/context.ts";
import { oweEverything } from "../../../src/source/owed.ts";
import {
  awaitPushChannels,
  openPushChannels,
  runPushChannel,
  tellPushChannels,
} from "../../../src/source/push-channels.ts";
import { chooseHostPages } from "../../../src/source/host-pages.ts";
import { openUrgentChannel } from "../../../src/source/urgent-channel.ts";
import { PUSHING, SourceShared, WORD } from "../../../src/source/shared.ts";
import { SOURCE } from "../../../src/report/counters.ts";
import { channelHead } from "../../../src/stream/further-channel.ts";
import { FEATURE } from "../../../src/stream/hello.ts";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { pageWord, SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";
import { PageReceiver } from "../../helpers/page-receiver.ts";
import { waitingBytes } from "../../fixtures/descriptors.ts";

const TOKEN = 0xfedc_ba98;

let descriptors = new Descriptors();
let guest = new SendingGuest([8]);
afterEach(() => {
  descriptors[Symbol.dispose]();
  guest[Symbol.dispose]();
  descriptors = new Descriptors();
  guest = new SendingGuest([8]);
});

/** A context whose `channel` is one end of a connection; `far` is the other. */
function open(settings: Partial<SourceContext["settings"]> = {}) {
  const [fd, far] = descriptors.pair();
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
  const context = sourceContext(guest.blocks, guest.shared, channel, stopFd, settings);
  return { context, far };
}

function word(index: number): number {
  return Atomics.load(guest.shared.control, index);
}

describe("opening push channels", () => {
  /** Connections that can be had, and what came of it. */
  function opened(settings: Partial<SourceContext["settings"]>, most: number, available = 9) {
    const { context } = open(settings);
    const events: SourceEvent[] = [];
    const given: number[] = [];
    const far: number[] = [];
    context.connectFurther = () => {
      if (far.length === available) throw new ChannelError("ECONNREFUSED", "Nobody listens there");
      const [near, other] = descriptors.pair();
      far.push(other);
      return near;
    };
    context.startPush = (fd) => given.push(fd);
    context.emit = (event) => events.push(event);
    return { count: openPushChannels(context, TOKEN, most), events, given, far };
  }

  test("as many as both ends want, each with its head", () => {
    const { count, events, given, far } = opened({ pushChannels: 3 }, 2);
    expect([count, given.length, word(WORD.pushOpen)]).toEqual([2, 2, 2]);
    expect(events).toEqual([]);
    for (const fd of far) expect(waitingBytes(fd)).toBe(channelHead("push", TOKEN).length);
  });

  test("none where the push is limited, or the destination takes none", () => {
    expect(opened({ pushChannels: 3, maxPostcopyBandwidth: 1e9 }, 3).count).toBe(0);
    expect(opened({ pushChannels: 3 }, 0).count).toBe(0);
  });

  test("why there are fewer is said once, where more were asked for by number", () => {
    const asked = { pushChannels: 3, channelsAsked: 4 };
    const says = (count: number, why: string): SourceEvent[] => [
      {
        kind: "warning",
        message: `The push goes on ${count} channels in place of the 4 of --channels: ${why}`,
      },
    ];
    expect(opened(asked, 1).events).toEqual(says(2, "the destination takes 2"));
    expect(opened(asked, 3).events).toEqual([]);
    expect(opened({ pushChannels: 3 }, 1).events).toEqual([]);
  });

  test("so it is where the peer takes one connection: a QEMU, or one of ours behind a pipe", () => {
    const why = { qemu: "a QEMU takes one", pipe: "the destination takes one connection" };
    for (const [features, says] of [
      [0, why.qemu],
      [FEATURE.running, why.pipe],
      [FEATURE.urgentChannel, "there is no second way to the destination"],
    ] as const) {
      const { context } = open({ pushChannels: 3, channelsAsked: 4 });
      const events: SourceEvent[] = [];
      context.emit = (event) => events.push(event);
      Atomics.store(guest.shared.control, WORD.peerFeatures, features);
      guest.shared.peerKnown.set();
      openUrgentChannel(context);
      const message = `The push goes on one channel in place of the 4 of --channels: ${says}`;
      expect(events).toEqual([
        { kind: "warning", message },
        { kind: "channels", urgentChannel: false, pushChannels: 1 },
      ]);
    }
  });

  test("fewer, and a warning, where no more can be had", () => {
    const { count, events, given } = opened({ pushChannels: 4 }, 4, 1);
    expect([count, given.length, word(WORD.pushOpen)]).toEqual([1, 1, 1]);
    expect(events).toEqual([
      {
        kind: "warning",
        message: expect.stringContaining("The push goes on fewer channels than it might: Nobody"),
      },
    ]);
  });
});

describe("the thread of a push channel", () => {
  test("pushes what is owed, from the middle on, and ends its channel", () => {
    const { context, far } = open({ pushChannels: 1 });
    const [mainFd] = descriptors.pair();
    oweEverything(guest.shared, guest.blocks);
    Atomics.store(guest.shared.control, WORD.pushOpen, 1);
    tellPushChannels(guest.shared, PUSHING.now);
    runPushChannel(context, 1, mainFd);
    expect([word(WORD.owed), word(WORD.pushOpen), word(WORD.pushLost)]).toEqual([0, 0, 0]);
    const receiver = new PageReceiver(
      new Channel({ fd: far, stopFd: descriptors.event(), peer: "it", bufferBytes: 1 << 20 }),
      guest.blocks,
    );
    expect(receiver.body()).toBe("end of section");
    const { pages } = receiver;
    // Apart from the main channel, which begins at the first page.
    expect(pages.map(({ page }) => page)).toEqual([4, 5, 6, 7, 0, 1, 2, 3]);
    for (const { block, page, word: got } of pages) expect(got).toBe(pageWord(block, page));
    expect(() => awaitPushChannels(guest.shared)).not.toThrow();
  });

  test("leaves without a word where the migration is over before the push", () => {
    const { context, far } = open({ pushChannels: 1 });
    const [mainFd] = descriptors.pair();
    oweEverything(guest.shared, guest.blocks);
    Atomics.store(guest.shared.control, WORD.pushOpen, 1);
    tellPushChannels(guest.shared, PUSHING.over);
    runPushChannel(context, 1, mainFd);
    expect([word(WORD.owed), word(WORD.pushOpen), word(WORD.pushLost)]).toEqual([8, 0, 0]);
    expect(waitingBytes(far)).toBe(0);
  });

  test("follows the host pages that were chosen since it opened the guest", () => {
    using large = new SendingGuest([1024]);
    const { control } = large.shared;
    const [mainFd] = descriptors.pair();
    const fd = descriptors.add(openSync("/dev/null", "w"));
    const stopFd = descriptors.event();
    const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
    const shared = new SourceShared(large.data, large.blocks);
    oweEverything(shared, large.blocks);
    // As the thread of the main channel knows them, and as this one does.
    const [chosen, own] = [structuredClone(large.blocks), structuredClone(large.blocks)];
    chooseHostPages(sourceContext(chosen, shared, channel, stopFd), FEATURE.largePages);
    expect(Atomics.load(control, WORD.owed)).toBe(2);
    Atomics.store(control, WORD.pushOpen, 1);
    tellPushChannels(shared, PUSHING.now);
    const context = sourceContext(own, new SourceShared(large.data, own, 1), channel, stopFd, {
      pushChannels: 1,
    });
    runPushChannel(context, 1, mainFd);
    expect(context.shared.counters.get(SOURCE.pagesPushed)).toBe(683);
    expect(context.shared.counters.get(SOURCE.pagesPushedZero)).toBe(341);
  });

  test("that is stopped with pages in its hands is lost, and the end is not told as if it were not", () => {
    const { context } = open({ pushChannels: 1 });
    const [mainFd] = descriptors.pair();
    oweEverything(guest.shared, guest.blocks);
    Atomics.store(guest.shared.control, WORD.pushOpen, 1);
    tellPushChannels(guest.shared, PUSHING.now);
    guest.shared.finished.set();
    runPushChannel(context, 1, mainFd);
    expect([word(WORD.pushOpen), word(WORD.pushLost)]).toEqual([0, 1]);
    guest.shared.finished.clear();
    expect(() => awaitPushChannels(guest.shared)).toThrow(ChannelError);
  });

  test("that breaks cuts the main one, and who waits for it is told", () => {
    const { context, far } = open({ pushChannels: 1 });
    const [mainFd, mainFar] = descriptors.pair();
    oweEverything(guest.shared, guest.blocks);
    descriptors.close(far);
    tellPushChannels(guest.shared, PUSHING.now);
    runPushChannel(context, 1, mainFd);
    const poll = new PollSet();
    poll.add(mainFar, POLL.POLLIN);
    expect(poll.wait(0)).toBe(1);
    expect(() => awaitPushChannels(guest.shared)).toThrow(ChannelError);
  });
});
