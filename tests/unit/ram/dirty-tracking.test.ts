import { describe, expect } from "bun:test";
import fc from "fast-check";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { discardPages, mapAnonymous, scratchAt } from "../../../syscalls/memory.ts";
import type { Mapping } from "../../../syscalls/memory.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import { PageBitmap } from "../../../src/ram/bitmap.ts";
import { targetPages } from "../../../src/ram/block.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { DirtyTracker, dirtyTrackingMissing } from "../../../src/ram/dirty-tracking.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { HUGE_PAGE_BYTES, HugePages, needHugePages } from "../../helpers/huge-pages.ts";
import { requireOrSkip } from "../../helpers/need.ts";
import type { Need } from "../../helpers/need.ts";
import { WRITER_WORD } from "../../fixtures/page-writer.ts";
import type * as PageWriterFixture from "../../fixtures/page-writer.ts";

const PAGE = 4096;

function needDirtyTracking(): Need {
  return { what: "dirty tracking", missing: dirtyTrackingMissing() };
}

const trackingTest = requireOrSkip(needDirtyTracking());

/** Blocks of memory that is tracked. */
class Tracked implements Disposable {
  readonly blocks: RamBlock[];
  readonly tracker: DirtyTracker;
  readonly #mappings: Mapping[];

  constructor(pageCounts: readonly number[], pageSize = PAGE, prepare?: (block: RamBlock) => void) {
    this.#mappings = pageCounts.map((count) => mapAnonymous(count * pageSize, { pageSize }));
    this.blocks = this.#mappings.map(({ address, length }, index) => {
      return { index, name: `block${index}`, address, length, pageSize };
    });
    for (const block of this.blocks) prepare?.(block);
    this.tracker = new DirtyTracker(this.blocks);
    this.tracker.start();
  }

  write(page: number, block = 0): void {
    const bytes = scratchAt((this.blocks[block]?.address ?? 0) + page * PAGE, 1).bytes;
    bytes[0] = ((bytes[0] ?? 0) + 1) & 0xff;
  }

  discard(page: number, count: number, block = 0): void {
    discardPages((this.blocks[block]?.address ?? 0) + page * PAGE, count * PAGE);
  }

  /** What was written since the last call, as ranges by block. */
  collect(): [first: number, count: number][][] {
    const dirty = this.blocks.map((block) => new PageBitmap(targetPages(block)));
    this.tracker.collect(dirty);
    return dirty.map((bitmap) => {
      const ranges: [number, number][] = [];
      bitmap.forEachRange((first, count) => ranges.push([first, count]));
      return ranges;
    });
  }

  [Symbol.dispose](): void {
    this.tracker.close();
    for (const mapping of this.#mappings) mapping[Symbol.dispose]();
  }
}

describe("dirty pages", () => {
  trackingTest("are those written since the last look, each seen once", () => {
    using tracked = new Tracked([64]);
    expect(tracked.collect()).toEqual([[]]);
    for (const page of [0, 5, 6, 7, 63]) tracked.write(page);
    tracked.write(5);
    expect(tracked.collect()).toEqual([
      [
        [0, 1],
        [5, 3],
        [63, 1],
      ],
    ]);
    expect(tracked.collect()).toEqual([[]]);
    tracked.write(6);
    expect(tracked.collect()).toEqual([[[6, 1]]]);
  });

  trackingTest("of memory that was never touched before are seen as well", () => {
    using untouched = new Tracked([1024]);
    untouched.write(700);
    expect(untouched.collect()).toEqual([[[700, 1]]]);
    using populated = new Tracked([1024], PAGE, ({ address, length }) => {
      scratchAt(address, length).bytes.fill(1);
    });
    expect(populated.collect()).toEqual([[]]);
    populated.write(700);
    expect(populated.collect()).toEqual([[[700, 1]]]);
  });

  trackingTest("are not those that were only read", () => {
    using tracked = new Tracked([64]);
    const { bytes } = scratchAt(tracked.blocks[0]?.address ?? 0, 64 * PAGE);
    expect(bytes.reduce((sum, byte) => sum + byte, 0)).toBe(0);
    expect(tracked.collect()).toEqual([[]]);
  });

  trackingTest("are those that were discarded, too, even whole page tables of them", () => {
    using tracked = new Tracked([4096], PAGE, ({ address, length }) => {
      scratchAt(address, length).bytes.fill(1);
    });
    tracked.discard(7, 3);
    expect(tracked.collect()).toEqual([[[7, 3]]]);
    expect(tracked.collect()).toEqual([[]]);
    // 8 MiB hold at least three whole page tables of 2 MiB, which the kernel may free at once.
    tracked.discard(1000, 2048);
    expect(tracked.collect()).toEqual([[[1000, 2048]]]);
    expect(tracked.collect()).toEqual([[]]);
    tracked.discard(1000, 2048);
    tracked.write(1500);
    tracked.write(500);
    expect(tracked.collect()).toEqual([
      [
        [500, 1],
        [1000, 2048],
      ],
    ]);
  });

  trackingTest("are told apart by block, and added to what the bitmaps hold already", () => {
    using tracked = new Tracked([16, 600, 1]);
    tracked.write(15, 0);
    tracked.write(599, 1);
    tracked.write(0, 2);
    const dirty = tracked.blocks.map((block) => new PageBitmap(targetPages(block)));
    dirty[1]?.set(3);
    tracked.tracker.collect(dirty);
    expect(dirty.map((bitmap) => bitmap.count())).toEqual([1, 2, 1]);
    expect(dirty[1]?.test(3)).toBe(true);
    expect(() => tracked.tracker.collect(dirty.slice(0, 2))).toThrow(
      "no dirty bitmap for block block2",
    );
  });

  trackingTest("may lie in more regions than the kernel reports at once", () => {
    const pages = 3 * 4096 * 2 + 10;
    using tracked = new Tracked([pages]);
    for (let page = 0; page < pages; page += 2) tracked.write(page);
    const [ranges = []] = tracked.collect();
    expect(ranges).toHaveLength(pages / 2);
    expect(ranges.every(([first, count], i) => first === 2 * i && count === 1)).toBe(true);
    expect(tracked.collect()).toEqual([[]]);
  });

  trackingTest("are what a model says, whatever is written and discarded", () => {
    using tracked = new Tracked([300, 40]);
    const page = fc.record({ block: fc.nat({ max: 1 }), page: fc.nat({ max: 39 }) });
    const action = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), at: page }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("discard" as const), at: page }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("collect" as const), at: page }) },
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        tracked.collect();
        const model = [new Set<number>(), new Set<number>()];
        const compare = (): void => {
          const seen = tracked.collect().map((ranges) => {
            return ranges.flatMap(([first, count]) =>
              Array.from({ length: count }, (_, i) => first + i),
            );
          });
          expect(seen).toEqual(model.map((set) => [...set].toSorted((a, b) => a - b)));
          for (const set of model) set.clear();
        };
        for (const { kind, at } of actions) {
          if (kind === "collect") compare();
          else if (kind === "write") {
            tracked.write(at.page, at.block);
            model[at.block]?.add(at.page);
          } else {
            tracked.discard(at.page, 1, at.block);
            model[at.block]?.add(at.page);
          }
        }
        compare();
      }),
      { numRuns: 50 },
    );
  });

  trackingTest("end with the tracker: its write protection is lifted", () => {
    using tracked = new Tracked([8]);
    tracked.tracker.collect(tracked.blocks.map((block) => new PageBitmap(targetPages(block))));
    const { fd } = openUserfault().userfault;
    closeDescriptor(fd);
    tracked.write(3);
    expect(scratchAt((tracked.blocks[0]?.address ?? 0) + 3 * PAGE, 1).bytes[0]).toBe(1);
  });
});

trackingTest("no write is lost while a scan runs", async () => {
  const pages = 2000;
  using tracked = new Tracked([pages]);
  const [block] = tracked.blocks;
  if (block === undefined) throw new Error("no block");
  const control = new Int32Array(new SharedArrayBuffer(8));
  const counts = new Int32Array(new SharedArrayBuffer(pages * 4));
  await using writer = await startThread<typeof PageWriterFixture>(
    import.meta.resolve("../../fixtures/page-writer.ts"),
  );
  const writing = writer.call(
    "writeUntilStopped",
    block.address,
    pages,
    control.buffer,
    counts.buffer,
    12_345,
  );
  const { view } = scratchAt(block.address, pages * PAGE);
  // What a destination would hold: pages copied after each scan that found them.
  const copy = new Int32Array(pages);
  const dirty = [new PageBitmap(pages)];
  const copyDirty = (): number => {
    let copied = 0;
    tracked.tracker.collect(dirty);
    for (let page = 0; page < pages; page++) {
      if (!dirty[0]?.claim(page)) continue;
      copy[page] = view.getInt32(page * PAGE, true);
      copied++;
    }
    return copied;
  };
  let rounds = 0;
  try {
    for (const end = performance.now() + 1500; performance.now() < end; rounds++) copyDirty();
  } finally {
    Atomics.store(control, WRITER_WORD.stop, 1);
  }
  const writes = await writing;
  copyDirty();
  expect(copyDirty()).toBe(0);
  expect(rounds).toBeGreaterThan(10);
  expect(writes).toBeGreaterThan(pages);
  expect([...copy]).toEqual([...counts]);
});

requireOrSkip(needDirtyTracking(), needHugePages(4))(
  "dirty huge pages are found whole",
  async () => {
    await using _pages = await HugePages.add(4);
    using tracked = new Tracked([4], HUGE_PAGE_BYTES, ({ address }) => {
      for (let page = 0; page < 4; page++) {
        scratchAt(address + page * HUGE_PAGE_BYTES, 1).bytes[0] = 1;
      }
    });
    expect(tracked.collect()).toEqual([[]]);
    tracked.write(5);
    tracked.write(3 * 512 + 511);
    expect(tracked.collect()).toEqual([
      [
        [0, 512],
        [1536, 512],
      ],
    ]);
    expect(tracked.collect()).toEqual([[]]);
  },
);
