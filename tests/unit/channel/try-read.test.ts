import { describe, expect, test } from "bun:test";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { channelOver, pattern } from "../../helpers/channel-over.ts";
import { Descriptors } from "../../helpers/descriptors.ts";

describe("what has arrived", () => {
  test("is taken without waiting where that is asked for", () => {
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    expect(channel.tryRead()).toBe(0);
    writeBytes(peerFd, pattern(10));
    expect(channel.tryRead()).toBe(10);
    expect(channel.tryRead()).toBe(0);
    descriptors.close(peerFd);
    expect(channel.tryRead()).toBe(-1);
    expect(channel.reader.take(10)).toEqual(pattern(10));
  });

  test("lies where the last bytes lay, behind what is left of them if that is little", () => {
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors, 32_768);
    const { reader } = channel;
    const bytes = pattern(60_000);
    let written = 0;
    const arrive = (count: number): void => {
      writeBytes(peerFd, bytes.subarray(written, written + count));
      written += count;
      expect(channel.tryRead()).toBe(count);
      const unread = reader.bytes.subarray(reader.pos, reader.end);
      expect(Buffer.from(unread).equals(bytes.subarray(reader.offset, written))).toBe(true);
    };
    arrive(20_000);
    reader.pos = 20_000;
    arrive(9000);
    expect([reader.pos, reader.end, reader.offset]).toEqual([0, 9000, 20_000]);
    // A page is moved.
    reader.pos = 9000 - 4096;
    arrive(4);
    expect([reader.pos, reader.end]).toEqual([0, 4100]);
    arrive(10_000);
    // More is not, as long as there is room behind it.
    reader.pos = 10_000 - 1;
    arrive(18_668);
    expect([reader.pos, reader.end]).toEqual([9999, 32_768]);
    arrive(1);
    expect([reader.pos, reader.end]).toEqual([0, 32_768 - 9999 + 1]);
  });

  test("is not taken for the end when the buffer is full of what nobody read", () => {
    using descriptors = new Descriptors();
    const { channel, peerFd } = channelOver(descriptors);
    writeBytes(peerFd, pattern(5000));
    expect(channel.tryRead()).toBe(4096);
    expect(() => channel.tryRead()).toThrow("full of unread bytes");
  });
});
