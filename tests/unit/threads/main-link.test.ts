/** The last word of a destination to its source: that the guest ran there and is no more. */
import { expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import { createDestShared, DestShared, WORD } from "../../../src/dest/shared.ts";
import { writeReturnPathMessage } from "../../../src/stream/return-path.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { MainLink } from "../../../src/threads/main-link.ts";
import { Descriptors } from "../../helpers/descriptors.ts";

test("is said once, where there is a return path that no thread is at", () => {
  using descriptors = new Descriptors();
  const shared = new DestShared(createDestShared());
  const link = new MainLink(shared, descriptors.event());
  const [fd, peerFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const source = new Channel({ fd: peerFd, stopFd, peer: "the destination", bufferBytes: 4096 });
  const heard = (): Uint8Array => {
    source.tryRead();
    return source.reader.take(source.reader.available).slice();
  };
  // Nobody has come, or who has did not open a return path.
  link.tellGone();
  link.fd = fd;
  link.tellGone();
  expect(heard()).toHaveLength(0);
  Atomics.store(shared.control, WORD.returnPathOpen, 1);
  // A thread has ended in the middle of a message: nothing is put behind half of one.
  shared.returnPathLock.lock();
  link.tellGone();
  expect(heard()).toHaveLength(0);
  shared.returnPathLock.unlock();
  for (let times = 0; times < 2; times++) link.tellGone();
  const writer = new StreamWriter();
  writeReturnPathMessage(writer, { kind: "shut", status: 2 });
  expect(heard()).toEqual(new Uint8Array(writer.bytes));
  expect(shared.returnPathLock.tryLock()).toBe(true);
});
