import { expect, test } from "bun:test";
import type { Compression } from "../../../src/source/compression-chooser.ts";
import { oweEverything } from "../../../src/source/owed.ts";
import { PushCompression } from "../../../src/source/push-compression.ts";
import { SpreadingOrder } from "../../../src/source/spreading-order.ts";
import { WORD } from "../../../src/source/shared.ts";
import { Channel } from "../../../src/channel/channel.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

const MIB = 1024 * 1024;
const WINDOW_MS = 100;
/** More than the link can take while a chunk is compressed. */
const PLENTY = 1024 * MIB;

interface Options {
  compression: Compression;
  maxPostcopyBandwidth: number;
}

/** A push over a link that is slow, and has as much in store as it is said to. */
function bench(descriptors: Descriptors, guest: SendingGuest, options: Partial<Options> = {}) {
  const { shared, blocks } = guest;
  const [fd] = descriptors.pair();
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
  const context = sourceContext(blocks, shared, channel, stopFd, options);
  Atomics.store(shared.control, WORD.packedRuns, 1);
  oweEverything(shared, blocks);
  const order = new SpreadingOrder(blocks, shared);
  order.find();
  const writer = context.makeWriter();
  let samples = 0;
  const tryPacking = writer.tryPacking.bind(writer);
  writer.tryPacking = (...words) => {
    samples++;
    tryPacking(...words);
  };
  let now = 0;
  let store = 0;
  const compression = new PushCompression(
    context,
    writer,
    MIB / 2,
    () => now,
    () => store,
  );
  /** Sends a window of what is not compressed; the store is `left` then. Whether more may be. */
  const send = (left: number): boolean => {
    now += WINDOW_MS;
    channel.waitedMs += WINDOW_MS;
    const bytes = 2 * MIB + left - store;
    store = left;
    compression.after(bytes, 0);
    compression.before(order);
    return writer.packer !== undefined;
  };
  return { send, samples: () => samples };
}

test("a chunk is compressed where the link has enough to do meanwhile", () => {
  using descriptors = new Descriptors();
  using guest = new SendingGuest([64]);
  const { send } = bench(descriptors, guest);
  expect([send(0), send(0)]).toEqual([false, false]);
  expect([send(PLENTY), send(0), send(PLENTY)]).toEqual([true, false, true]);
});

test("a window of which nothing was compressed is followed by a sample, as one that was plain", () => {
  using descriptors = new Descriptors();
  using guest = new SendingGuest([64]);
  const { send, samples } = bench(descriptors, guest);
  for (let window = 1; window <= 6; window++) {
    send(0);
    expect(samples()).toBe(window);
  }
});

test("nothing is asked of the link where all is to be compressed, or the push is limited", () => {
  using descriptors = new Descriptors();
  using guest = new SendingGuest([64]);
  expect(bench(descriptors, guest, { compression: "zstd" }).send(0)).toBe(true);
  const { send } = bench(descriptors, guest, { maxPostcopyBandwidth: 20 * MIB });
  expect([send(0), send(0)]).toEqual([false, true]);
});
