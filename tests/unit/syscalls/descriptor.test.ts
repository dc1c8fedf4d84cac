import { afterEach, describe, expect, test } from "bun:test";
import {
  closeDescriptor,
  makeEventDescriptor,
  POLL,
  PollSet,
  raiseEventDescriptor,
  setNonBlocking,
} from "../../../syscalls/descriptor.ts";
import { readInto } from "../../../syscalls/io.ts";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { makeSocketPair } from "../../../syscalls/socket.ts";
import { SharedEvent } from "../../../src/sync/event.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import type * as DescriptorsFixture from "../../fixtures/descriptors.ts";

const open: number[] = [];

function event(): number {
  const fd = makeEventDescriptor();
  open.push(fd);
  return fd;
}

function pair(): [number, number] {
  const fds = makeSocketPair();
  open.push(...fds);
  return fds;
}

afterEach(() => {
  for (const fd of open.splice(0)) closeDescriptor(fd);
});

describe("a poll set", () => {
  test("waits as long as it was told, and not at all for nothing", () => {
    const poll = new PollSet();
    poll.add(event(), POLL.POLLIN);
    for (const timeoutMs of [0, 0.2, 20, 60.5]) {
      const began = performance.now();
      expect(poll.wait(timeoutMs)).toBe(0);
      const tookMs = performance.now() - began;
      expect(tookMs).toBeGreaterThanOrEqual(timeoutMs * 0.99);
      expect(tookMs).toBeLessThan(timeoutMs + 5000);
    }
  });

  test("says which slots are ready, and for what", () => {
    const poll = new PollSet();
    const [a, b] = pair();
    const raised = event();
    const slots = [
      poll.add(event(), POLL.POLLIN),
      poll.add(raised, POLL.POLLIN),
      poll.add(a, POLL.POLLIN | POLL.POLLOUT),
      poll.add(-1, POLL.POLLIN),
    ];
    raiseEventDescriptor(raised);
    expect(poll.wait(Infinity)).toBe(2);
    expect(slots.map((slot) => poll.ready(slot))).toEqual([0, POLL.POLLIN, POLL.POLLOUT, 0]);
    writeBytes(b, Uint8Array.of(1));
    poll.wait(Infinity);
    expect(poll.ready(2)).toBe(POLL.POLLIN | POLL.POLLOUT);
  });

  test("finds each slot that is in use, whichever before and behind it are idle", () => {
    const poll = new PollSet();
    const raised = event();
    raiseEventDescriptor(raised);
    const slots = [poll.add(-1, 0), poll.add(-1, 0), poll.add(-1, 0)];
    const used = [false, false, false];
    const set = (slot: number, isUsed: boolean): void => {
      poll.set(slot, isUsed ? raised : -1, POLL.POLLIN);
      used[slot] = isUsed;
      expect(poll.wait(0)).toBe(used.filter(Boolean).length);
      expect(slots.map((each) => poll.ready(each) === POLL.POLLIN)).toEqual(used);
    };
    for (let state = 0; state < 8; state++) {
      for (const slot of slots) {
        for (const each of slots) set(each, (state & (1 << each)) !== 0);
        set(slot, used[slot] !== true);
        set(slot, used[slot] !== true);
      }
    }
  });

  test("forgets what a slot was ready for when it is given something else", () => {
    const poll = new PollSet();
    const raised = event();
    const slot = poll.add(raised, POLL.POLLIN);
    raiseEventDescriptor(raised);
    poll.wait(Infinity);
    poll.set(slot, -1, 0);
    expect(poll.ready(slot)).toBe(0);
    expect(poll.wait(0)).toBe(0);
    poll.set(slot, raised, POLL.POLLIN);
    expect(poll.wait(0)).toBe(1);
  });

  test("wakes up when another thread raises an event", async () => {
    await using other = await startThread<typeof DescriptorsFixture>(
      import.meta.resolve("../../fixtures/descriptors.ts"),
    );
    const poll = new PollSet();
    const fd = event();
    poll.add(fd, POLL.POLLIN);
    const go = new SharedEvent();
    const raising = other.call("raiseAfter", go.shared, fd);
    expect(poll.wait(0)).toBe(0);
    go.set();
    expect(poll.wait(10_000)).toBe(1);
    await raising;
  });

  test("has room for 128 descriptors and refuses one more", () => {
    const poll = new PollSet();
    const fd = event();
    raiseEventDescriptor(fd);
    for (let slot = 0; slot < 128; slot++) expect(poll.add(fd, POLL.POLLIN)).toBe(slot);
    expect(poll.wait(Infinity)).toBe(128);
    expect(poll.ready(127)).toBe(POLL.POLLIN);
    expect(() => poll.add(fd, POLL.POLLIN)).toThrow(RangeError);
  });

  test("reports a descriptor that is not open instead of failing", () => {
    const poll = new PollSet();
    poll.add(1_000_000, POLL.POLLIN);
    expect(poll.wait(Infinity)).toBe(1);
    expect(poll.ready(0)).toBe(POLL.POLLNVAL);
  });
});

test("an event stays raised, however often it is raised and seen", () => {
  const poll = new PollSet();
  const fd = event();
  poll.add(fd, POLL.POLLIN);
  for (let i = 0; i < 3; i++) {
    raiseEventDescriptor(fd);
    expect(poll.wait(0)).toBe(1);
    expect(poll.wait(0)).toBe(1);
  }
});

test("a descriptor is made non-blocking and blocking again, its other flags kept", () => {
  const [a, b] = pair();
  const scratch = mapScratch(16);
  setNonBlocking(a, true);
  expect(readInto(a, scratch.address, 16)).toBe(-ERRNO.EAGAIN);
  setNonBlocking(a, true);
  expect(readInto(a, scratch.address, 16)).toBe(-ERRNO.EAGAIN);
  setNonBlocking(a, false);
  writeBytes(b, Uint8Array.of(5, 6));
  expect(readInto(a, scratch.address, 16)).toBe(2);
  expect(() => setNonBlocking(1_000_000, true)).toThrow("EBADF");
});
