import { describe, expect } from "bun:test";
import fc from "fast-check";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { mapScratch, putU64, scratchAt } from "../../../syscalls/memory.ts";
import { monotonicNs } from "../../../syscalls/process.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { requestTicks, WORD } from "../../../src/dest/shared.ts";
import { ArrivingMemory } from "../../helpers/arriving-memory.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as GuestMemory from "../../fixtures/guest-memory.ts";

const PAGE = 4096;
const placingTest = requireOrSkip(needUserfaultfd());
const GUEST = import.meta.resolve("../../fixtures/guest-memory.ts");
const guestThread = () => startThread<typeof GuestMemory>(GUEST);

/** Fills page i of a buffer with `first + i`. */
function fill(bytes: Uint8Array, first: number): void {
  for (let at = 0; at < bytes.length; at += PAGE) bytes.fill(first + at / PAGE, at, at + PAGE);
}

/** The first byte of each page of a range; -1 for a page that is not there (it is zero after). */
function contents(arriving: ArrivingMemory, index: number, first: number, count: number): number[] {
  const { address } = arriving.block(index);
  return Array.from({ length: count }, (_, i) => {
    const at = address + (first + i) * PAGE;
    if (arriving.memory.userfault.zero(at, PAGE) !== -ERRNO.EEXIST) return -1;
    return scratchAt(at + (i % PAGE), 1).bytes[0] ?? -1;
  });
}

/** Places a page without waking whoever waits for it. */
function placeQuietly(arriving: ArrivingMemory, target: number, source: number): void {
  const { address, view } = mapScratch(40);
  putU64(view, 0, target);
  putU64(view, 8, source);
  putU64(view, 16, PAGE);
  // UFFDIO_COPY_MODE_DONTWAKE
  putU64(view, 24, 1);
  expect(syscall(NR.ioctl, arriving.memory.userfault.fd, UFFD.UFFDIO_COPY, address)).toBe(0);
}

describe("placing", () => {
  placingTest("a run of pages puts each where it belongs and counts it once", () => {
    using arriving = new ArrivingMemory();
    const { placer, buffer } = arriving.placer(8);
    fill(buffer.bytes, 10);
    placer.pages(arriving.block(1), 4 * PAGE, 2 * PAGE, 5);
    expect(contents(arriving, 1, 3, 7)).toEqual([-1, 12, 13, 14, 15, 16, -1]);
    expect(arriving.received(1)).toEqual([4, 5, 6, 7, 8]);
    expect(arriving.received(0)).toEqual([]);
    expect(arriving.missing).toBe(75);
    expect(placer.counts).toEqual({ exists: 0, retries: 0, dropped: 0 });
  });

  placingTest("much at once lets others have the lock in between, while the guest faults", () => {
    using arriving = new ArrivingMemory();
    const { placer, buffer } = arriving.placer(20);
    const { control, placingLock } = arriving.shared;
    fill(buffer.bytes, 1);
    let locked = 0;
    const lock = placingLock.lock.bind(placingLock);
    placingLock.lock = () => {
      locked++;
      lock();
    };
    placer.pages(arriving.block(0), 0, 0, 20);
    expect(locked).toBe(1);
    Atomics.add(control, WORD.faultsFound, 1);
    placer.pages(arriving.block(0), 30 * PAGE, 0, 20);
    expect(locked).toBe(4);
    // No further fault was found.
    placer.pages(arriving.block(0), 50 * PAGE, 0, 10);
    expect(locked).toBe(5);
    const bytes = Array.from({ length: 20 }, (_, page) => page + 1);
    expect(contents(arriving, 0, 0, 20)).toEqual(bytes);
    expect(contents(arriving, 0, 30, 20)).toEqual(bytes);
    expect(contents(arriving, 0, 50, 10)).toEqual(bytes.slice(0, 10));
  });

  placingTest("zeros needs no data", () => {
    using arriving = new ArrivingMemory();
    const { placer } = arriving.placer(1);
    placer.zeros(arriving.block(0), 60 * PAGE, 4);
    expect(contents(arriving, 0, 59, 5)).toEqual([-1, 0, 0, 0, 0]);
    expect(arriving.missing).toBe(76);
  });

  placingTest("wakes whoever waits and notes how long they had waited for a request", async () => {
    using arriving = new ArrivingMemory();
    await using guest = await guestThread();
    const { placer, buffer } = arriving.placer(3);
    fill(buffer.bytes, 1);
    const reading = guest.call("readWord", arriving.block(0).address + 7 * PAGE);
    arriving.memory.events();
    const requestedAt = arriving.pages.requestedAt[0];
    Atomics.store(requestedAt!, 7, requestTicks(monotonicNs() - 5e6));
    placer.pages(arriving.block(0), 6 * PAGE, 0, 3);
    expect(await reading).toBe(0x0202_0202);
    expect(Atomics.load(requestedAt!, 7)).toBe(0);
    const times = arriving.shared.listenTimes.summary();
    expect(times.count).toBe(1);
    expect(times.max).toBeGreaterThanOrEqual(4.9e6);
  });

  placingTest(
    "a page that is there already leaves it alone, wakes its waiters and goes on",
    async () => {
      using arriving = new ArrivingMemory();
      await using guest = await guestThread();
      const { placer, buffer } = arriving.placer(8);
      fill(buffer.bytes, 1);
      const block = arriving.block(0);
      const reading = guest.call("readWord", block.address + 5 * PAGE);
      arriving.memory.events();
      placeQuietly(arriving, block.address + 5 * PAGE, buffer.address + 7 * PAGE);
      placer.pages(block, 0, 0, 8);
      expect(await reading).toBe(0x0808_0808);
      expect(contents(arriving, 0, 0, 8)).toEqual([1, 2, 3, 4, 5, 8, 7, 8]);
      expect(placer.counts).toEqual({ exists: 1, retries: 0, dropped: 0 });
      expect(arriving.missing).toBe(72);
      placer.zeros(block, 6 * PAGE, 4);
      expect(placer.counts.exists).toBe(3);
      expect(arriving.missing).toBe(70);
    },
  );

  placingTest("drops what the guest has discarded, and places what lies around it", () => {
    using arriving = new ArrivingMemory();
    const { placer, buffer } = arriving.placer(8);
    fill(buffer.bytes, 1);
    const removed = arriving.pages.removed[0];
    for (const page of [0, 3, 4, 7]) removed?.set(page);
    Atomics.store(arriving.shared.control, WORD.anyRemoved, 1);
    placer.pages(arriving.block(0), 0, 0, 8);
    expect(contents(arriving, 0, 0, 8)).toEqual([-1, 2, 3, -1, -1, 6, 7, -1]);
    expect(arriving.received(0)).toEqual([1, 2, 5, 6]);
    expect(placer.counts.dropped).toBe(4);
    placer.zeros(arriving.block(0), 3 * PAGE, 2);
    expect(placer.counts.dropped).toBe(6);
    // The same pages of another block are nobody's business.
    placer.zeros(arriving.block(1), 3 * PAGE, 2);
    expect(placer.counts.dropped).toBe(6);
  });

  placingTest(
    "lets events be read first when the kernel wants that, and then goes on",
    async () => {
      using arriving = new ArrivingMemory();
      await using guest = await guestThread();
      const block = arriving.block(0);
      let drained = 0;
      const { placer, buffer } = arriving.placer(4, {
        drainEvents: () => {
          drained++;
          // It must be possible to take the lock here: that is how events are read.
          arriving.shared.placingLock.lockUrgent();
          for (const event of arriving.memory.hasEvents ? arriving.memory.events() : []) {
            expect(event).toMatchObject({ kind: "remove" });
            arriving.pages.removed[0]?.setRange(1, 2);
            Atomics.store(arriving.shared.control, WORD.anyRemoved, 1);
          }
          arriving.shared.placingLock.unlock();
        },
      });
      fill(buffer.bytes, 1);
      const discarding = guest.call("discard", block.address + PAGE, 2 * PAGE);
      arriving.memory.awaitEvent();
      placer.pages(block, 0, 0, 4);
      await discarding;
      expect(drained).toBeGreaterThan(0);
      expect(placer.counts).toEqual({ exists: 0, retries: drained, dropped: 2 });
      expect(contents(arriving, 0, 0, 4)).toEqual([1, -1, -1, 4]);
    },
  );

  placingTest("any run over any state gives what a model says", () => {
    using arriving = new ArrivingMemory({ pages: [20_000] });
    const { placer, buffer } = arriving.placer(24);
    fill(buffer.bytes, 100);
    const state = fc.constantFrom("missing", "missing", "there", "removed");
    const states = fc.array(state, { minLength: 1, maxLength: 24 });
    let next = 0;
    fc.assert(
      fc.property(states, fc.boolean(), (all, zeros) => {
        const block = arriving.block(0);
        const first = next;
        next += all.length;
        all.forEach((each, i) => {
          const target = block.address + (first + i) * PAGE;
          if (each === "there") arriving.memory.userfault.copy(target, buffer.address, PAGE);
          else if (each === "removed") arriving.pages.removed[0]?.set(first + i);
        });
        Atomics.store(arriving.shared.control, WORD.anyRemoved, 1);
        const before = { ...placer.counts, missing: arriving.missing };
        if (zeros) placer.zeros(block, first * PAGE, all.length);
        else placer.pages(block, first * PAGE, 0, all.length);
        const count = (what: string): number => all.filter((each) => each === what).length;
        expect(contents(arriving, 0, first, all.length)).toEqual(
          all.map((each, i) => {
            if (each === "removed") return -1;
            if (each === "there") return 100;
            return zeros ? 0 : 100 + i;
          }),
        );
        expect(placer.counts.dropped - before.dropped).toBe(count("removed"));
        expect(placer.counts.exists - before.exists).toBe(count("there"));
        expect(before.missing - arriving.missing).toBe(all.length - count("removed"));
      }),
      { numRuns: 200 },
    );
  });

  placingTest("in memory that is not registered any more fails aloud", () => {
    using arriving = new ArrivingMemory();
    const { placer } = arriving.placer(1);
    const block = arriving.block(1);
    arriving.memory.userfault.unregister(block.address, block.length);
    expect(() => placer.pages(block, PAGE, 0, 1)).toThrow(
      "ioctl(UFFDIO_COPY, 4096 bytes at 4096 of block1) failed: ENOENT",
    );
    // The lock is free again.
    placer.zeros(arriving.block(0), 0, 1);
  });
});
