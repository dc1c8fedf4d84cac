import { expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import {
  DESCRIPTORS_MAX,
  receiveWithDescriptors,
  sendWithDescriptors,
} from "../../../syscalls/ancillary.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { Descriptors } from "../../helpers/descriptors.ts";

const scratch = mapScratch(4096);

/** Sends bytes of the given value. */
function send(fd: number, length: number, value: number, descriptors: readonly number[]): number {
  scratch.bytes.fill(value, 0, length);
  return sendWithDescriptors(fd, scratch.address, length, descriptors);
}

test("descriptors come with the bytes they were sent with, as others of the same files", () => {
  using descriptors = new Descriptors();
  const [sender, receiver] = descriptors.pair();
  const files = [descriptors.event(), descriptors.event()];
  expect(send(sender, 3, 7, files)).toBe(3);
  scratch.bytes.fill(0);
  const got = receiveWithDescriptors(receiver, scratch.address, 100);
  got.descriptors.forEach((fd) => descriptors.add(fd));
  expect(got).toMatchObject({ result: 3, truncated: false });
  expect([...scratch.bytes.subarray(0, 4)]).toEqual([7, 7, 7, 0]);
  expect(got.descriptors).toHaveLength(2);
  for (const [index, fd] of got.descriptors.entries()) {
    expect(files).not.toContain(fd);
    expect(fstatSync(fd).ino).toBe(fstatSync(files[index] ?? -1).ino);
  }
});

test("bytes without descriptors, nothing yet, and the end", () => {
  using descriptors = new Descriptors();
  const [sender, receiver] = descriptors.pair();
  const none = { descriptors: [], truncated: false };
  const receive = () => receiveWithDescriptors(receiver, scratch.address, 100);
  expect(receive()).toEqual({ result: -ERRNO.EAGAIN, ...none });
  expect(send(sender, 5, 1, [])).toBe(5);
  expect(receive()).toEqual({ result: 5, ...none });
  descriptors.close(sender);
  expect(receive()).toEqual({ result: 0, ...none });
  expect(send(receiver, 1, 1, [])).toBe(-ERRNO.EPIPE);
});

test("no call brings the descriptors of two messages", () => {
  using descriptors = new Descriptors();
  const [sender, receiver] = descriptors.pair();
  send(sender, 2, 1, []);
  send(sender, 2, 2, [descriptors.event()]);
  send(sender, 2, 3, [descriptors.event()]);
  const counts: number[] = [];
  for (let bytes = 0; bytes < 6;) {
    const got = receiveWithDescriptors(receiver, scratch.address, 100);
    got.descriptors.forEach((fd) => descriptors.add(fd));
    expect(got.result).toBeGreaterThan(0);
    bytes += got.result;
    counts.push(got.descriptors.length);
  }
  expect(counts.filter((count) => count > 0)).toEqual([1, 1]);
});

test("as many at once as the kernel passes", () => {
  using descriptors = new Descriptors();
  const [sender, receiver] = descriptors.pair();
  const one = descriptors.event();
  expect(
    send(
      sender,
      1,
      1,
      Array.from({ length: DESCRIPTORS_MAX }, () => one),
    ),
  ).toBe(1);
  const got = receiveWithDescriptors(receiver, scratch.address, 1);
  got.descriptors.forEach((fd) => descriptors.add(fd));
  expect(new Set(got.descriptors).size).toBe(DESCRIPTORS_MAX);
  const more = Array.from({ length: DESCRIPTORS_MAX + 1 }, () => one);
  expect(() => send(sender, 1, 1, more)).toThrow(RangeError);
});
