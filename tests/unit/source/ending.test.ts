import { expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import { awaitShut } from "../../../src/source/ending.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

test("a destination that never confirms the end is not waited for for ever", () => {
  using descriptors = new Descriptors();
  using guest = new SendingGuest([1]);
  const [fd] = descriptors.pair();
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
  const context = sourceContext(guest.blocks, guest.shared, channel, stopFd);
  expect(() => awaitShut(context, 20)).toThrow("The destination did not confirm the end");
});
