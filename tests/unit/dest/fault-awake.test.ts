/** A fault thread that waits awake for an answer, here for as long as it takes, misses nothing meanwhile. */
import { describe, expect } from "bun:test";
import { HELD, WORD } from "../../../src/dest/shared.ts";
import { pageData } from "../../fixtures/postcopy-threads.ts";
import { SPIN_WORD } from "../../fixtures/endless-spin.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { FaultBench } from "../../helpers/fault-bench.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { RamRecords } from "../../helpers/ram-records.ts";

const PAGE = 4096;
const awakeTest = requireOrSkip(needUserfaultfd());

/** A fault thread with an urgent channel. */
async function startBench(bench: FaultBench) {
  const { early, channel } = bench.urgentPair();
  const spin = new Int32Array(new SharedArrayBuffer(8));
  await bench.start({ early: [early], spin: spin.buffer });
  const isAwake = (): boolean => Atomics.load(spin, SPIN_WORD.awake) === 1;
  return {
    urgentFd: channel.fd,
    answer: (page: number) =>
      channel.write(new RamRecords().page("block0", page * PAGE, pageData(0, page), true).bytes),
    awake: () => waitUntil(isAwake, "a fault thread that waits awake"),
    asleep: () => waitUntil(() => !isAwake(), "one that sleeps"),
    /** How often it has begun to wait awake. */
    begun: () => Atomics.load(spin, SPIN_WORD.begun),
  };
}

/** A thread of the guest's that touches a page of the first block. */
async function touch(bench: FaultBench, page: number): Promise<{ reading: Promise<number> }> {
  const guest = await bench.guest();
  return { reading: guest.call("readWord", bench.arriving.block(0).address + page * PAGE) };
}

describe("a fault thread that waits awake", () => {
  awakeTest("places the answer, and then sleeps until it asks again", async () => {
    await using bench = new FaultBench();
    const { answer, awake, asleep, begun } = await startBench(bench);
    for (const page of [5, 6]) {
      const { reading } = await touch(bench, page);
      expect(bench.request()).toMatchObject({ start: page * PAGE });
      await awake();
      answer(page);
      expect(await reading).toBe(page + 1);
      await asleep();
    }
    // A page that nobody asked for finds it asleep, and leaves it so.
    const before = begun();
    answer(7);
    await waitUntil(() => bench.arriving.pages.received[0]?.test(7), "the page");
    expect(await bench.stop()).toEqual([]);
    expect(begun()).toBe(before);
  });

  awakeTest("asks for what else the guest touches", async () => {
    await using bench = new FaultBench();
    const { answer, awake } = await startBench(bench);
    const first = await touch(bench, 1);
    expect(bench.request()).toMatchObject({ start: PAGE });
    await awake();
    const second = await touch(bench, 2);
    expect(bench.request()).toMatchObject({ start: 2 * PAGE });
    await awake();
    answer(2);
    expect(await second.reading).toBe(3);
    answer(1);
    expect(await first.reading).toBe(2);
    expect(await bench.stop()).toEqual([]);
  });

  awakeTest("ends when it is told to", async () => {
    await using bench = new FaultBench();
    const { awake } = await startBench(bench);
    await touch(bench, 3);
    await awake();
    expect(await bench.stop()).toEqual([]);
  });

  awakeTest("sleeps once its urgent channel is lost, as no answer comes on it", async () => {
    await using bench = new FaultBench();
    const { awake, asleep, urgentFd, begun } = await startBench(bench);
    const lost = await touch(bench, 3);
    expect(bench.request()).toMatchObject({ start: 3 * PAGE });
    await awake();
    bench.descriptors.close(urgentFd);
    await asleep();
    const before = begun();
    const { reading } = await touch(bench, 4);
    expect(bench.request()).toMatchObject({ start: 4 * PAGE });
    const { placer } = bench.arriving.placer(1);
    placer.zeros(bench.arriving.block(0), 3 * PAGE, 2);
    expect(await Promise.all([lost.reading, reading])).toEqual([0, 0]);
    expect(await bench.stop()).toEqual([]);
    expect(begun()).toBe(before);
  });

  awakeTest("does not do so for what it may not ask for yet", async () => {
    await using bench = new FaultBench();
    const { begun } = await startBench(bench);
    Atomics.store(bench.arriving.shared.control, WORD.requestsHeld, HELD.untilListen);
    const { reading } = await touch(bench, 8);
    await waitUntil(() => bench.count("faultsRemote") === 1, "the fault");
    const { placer } = bench.arriving.placer(1);
    placer.zeros(bench.arriving.block(0), 8 * PAGE, 1);
    expect(await reading).toBe(0);
    expect(await bench.stop()).toEqual([]);
    expect(bench.noRequest).toBe(true);
    expect(begun()).toBe(0);
  });
});
