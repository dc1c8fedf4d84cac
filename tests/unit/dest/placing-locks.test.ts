import { expect, test } from "bun:test";
import { createPlacingLocks, PlacingLocks } from "../../../src/dest/placing-locks.ts";
import { PUSH_CHANNELS_MAX } from "../../../src/stream/further-channel.ts";

const NO_FAVOUR = { lend: () => undefined, takeBack: () => undefined };

test("channels are placed side by side, and none while events are read", () => {
  const data = createPlacingLocks();
  const [placers, reader] = [new PlacingLocks(data), new PlacingLocks(data)];
  placers.of(0).lock();
  expect(placers.of(1).tryLock()).toBe(true);
  for (const channel of [0, 1]) placers.of(channel).unlock();
  reader.lockAll(NO_FAVOUR);
  for (let channel = 0; channel < PUSH_CHANNELS_MAX; channel++) {
    expect(placers.of(channel).tryLock()).toBe(false);
  }
  reader.unlockAll();
  for (let channel = 0; channel < PUSH_CHANNELS_MAX; channel++) {
    expect(placers.of(channel).tryLock()).toBe(true);
  }
});

test("there is one for each channel that can be", () => {
  expect(() => new PlacingLocks(createPlacingLocks()).of(PUSH_CHANNELS_MAX)).toThrow(RangeError);
});
