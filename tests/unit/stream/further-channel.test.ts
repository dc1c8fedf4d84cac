import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  CHANNEL_HEAD_BYTES,
  PUSH_CHANNELS_MAX,
  channelHead,
  furtherPushChannels,
  readChannelHead,
  withFurtherPushChannels,
} from "../../../src/stream/further-channel.ts";
import { FEATURES_OURS, chosenValue, readHello } from "../../../src/stream/hello.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const kinds = fc.constantFrom("urgent" as const, "push" as const);
const MAGICS = { urgent: "PCUR", push: "PCPU" };

describe("the head of a further connection", () => {
  test("gives kind and token back, and nothing without the magic", () => {
    fc.assert(
      fc.property(kinds, u32, fc.nat(3), (kind, token, at) => {
        const bytes = channelHead(kind, token);
        expect(bytes).toHaveLength(CHANNEL_HEAD_BYTES);
        expect(new TextDecoder().decode(bytes.subarray(0, 4))).toBe(MAGICS[kind]);
        expect(readChannelHead(new DataView(bytes.buffer), 0)).toEqual({ kind, token });
        bytes[at] = (bytes[at] ?? 0) ^ 0x80;
        expect(readChannelHead(new DataView(bytes.buffer), 0)).toBeUndefined();
      }),
    );
  });
});

describe("the number of push channels", () => {
  test("lies beside the features, in what a PING can carry", () => {
    for (let count = 0; count < PUSH_CHANNELS_MAX; count++) {
      const bits = withFurtherPushChannels(FEATURES_OURS, count);
      const { bits: read = -1 } = readHello(chosenValue(bits)) ?? {};
      expect(furtherPushChannels(read)).toBe(count);
      expect(withFurtherPushChannels(read, 0)).toBe(FEATURES_OURS);
    }
  });

  test("is never more than there is room for, whatever a peer says", () => {
    expect(furtherPushChannels(0xf000)).toBe(PUSH_CHANNELS_MAX - 1);
  });
});
