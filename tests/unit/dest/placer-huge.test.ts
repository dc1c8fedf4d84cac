import { describe, expect } from "bun:test";
import { scratchAt } from "../../../syscalls/memory.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { HUGE_PAGE_BYTES, HugePages, needHugePages } from "../../helpers/huge-pages.ts";
import { ArrivingMemory } from "../../helpers/arriving-memory.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type * as GuestMemory from "../../fixtures/guest-memory.ts";

const PAGE = 4096;
/** Target pages in a huge page of these tests: four, on memory of base pages. */
const SMALL_HUGE = 4 * PAGE;
const hugeTest = requireOrSkip(needUserfaultfd());
const GUEST = import.meta.resolve("../../fixtures/guest-memory.ts");

function smallHuge(): ArrivingMemory {
  return new ArrivingMemory({ pages: [16, 8], pageSize: SMALL_HUGE });
}

/** The first word of a page, which must be there. */
function word(arriving: ArrivingMemory, index: number, page: number): number {
  return scratchAt(arriving.block(index).address + page * PAGE, 4).view.getUint32(0, true);
}

function refusalOf(action: () => void): StreamError {
  try {
    action();
  } catch (error) {
    if (error instanceof StreamError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("a host page of several target pages", () => {
  hugeTest("is placed as a whole, when its last part is here", () => {
    using arriving = smallHuge();
    const { placer, buffer } = arriving.placer(4);
    for (let i = 0; i < 4; i++) buffer.bytes.fill(i + 1, i * PAGE, (i + 1) * PAGE);
    const block = arriving.block(0);
    placer.pages(block, 4 * PAGE, 0, 2);
    placer.zeros(block, 6 * PAGE, 1);
    expect(arriving.received(0)).toEqual([]);
    placer.pages(block, 7 * PAGE, 3 * PAGE, 1);
    expect(arriving.received(0)).toEqual([4, 5, 6, 7]);
    expect([4, 5, 6, 7].map((page) => word(arriving, 0, page))).toEqual([
      0x0101_0101, 0x0202_0202, 0, 0x0404_0404,
    ]);
    expect(arriving.missing).toBe(20);
  });

  hugeTest("may share its run with others, and leaves nothing of itself for the next one", () => {
    using arriving = smallHuge();
    const { placer, buffer } = arriving.placer(12);
    buffer.bytes.fill(9);
    placer.pages(arriving.block(0), 4 * PAGE, 0, 12);
    expect(arriving.received(0)).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    placer.zeros(arriving.block(1), 4 * PAGE, 4);
    expect([4, 5, 6, 7].map((page) => word(arriving, 1, page))).toEqual([0, 0, 0, 0]);
  });

  hugeTest("that is there already counts as received, once", () => {
    using arriving = smallHuge();
    const { placer, buffer } = arriving.placer(4);
    const block = arriving.block(0);
    arriving.memory.userfault.copy(block.address, buffer.address, SMALL_HUGE);
    placer.zeros(block, 0, 4);
    expect(placer.counts.exists).toBe(1);
    expect(arriving.received(0)).toEqual([0, 1, 2, 3]);
  });

  hugeTest("must come in order and without others in between", () => {
    const wrong: [what: string, (arriving: ArrivingMemory) => void][] = [];
    const attempt = (what: string, place: (arriving: ArrivingMemory) => void): void => {
      wrong.push([what, place]);
    };
    attempt("begins in the middle", (arriving) => {
      arriving.placer(1).placer.zeros(arriving.block(0), PAGE, 1);
    });
    attempt("leaves a part out", (arriving) => {
      const { placer } = arriving.placer(1);
      placer.zeros(arriving.block(0), 0, 1);
      placer.zeros(arriving.block(0), 2 * PAGE, 1);
    });
    attempt("repeats a part", (arriving) => {
      const { placer } = arriving.placer(1);
      placer.pages(arriving.block(0), 0, 0, 1);
      placer.pages(arriving.block(0), 0, 0, 1);
    });
    attempt("is broken off by another", (arriving) => {
      const { placer } = arriving.placer(1);
      placer.zeros(arriving.block(0), 0, 3);
      placer.zeros(arriving.block(0), 4 * PAGE, 1);
    });
    attempt("is broken off by the same place of another block", (arriving) => {
      const { placer } = arriving.placer(1);
      placer.zeros(arriving.block(0), 4 * PAGE, 1);
      placer.zeros(arriving.block(1), 5 * PAGE, 1);
    });
    for (const [what, place] of wrong) {
      using arriving = smallHuge();
      const refusal = refusalOf(() => place(arriving));
      expect([what, refusal.code]).toEqual([what, "BAD_ORDER"]);
      expect(refusal.message).toMatch(
        /^The page at \d+ of block\d came inside of another host page$/,
      );
      expect(arriving.received(0)).toEqual([]);
    }
  });

  hugeTest("may be followed by one of another size", () => {
    using arriving = smallHuge();
    const { placer, buffer } = arriving.placer(8);
    buffer.bytes.fill(5);
    placer.pages(arriving.block(0), 0, 0, 4);
    const larger = { ...arriving.block(1), pageSize: 2 * SMALL_HUGE };
    placer.pages(larger, 0, 0, 8);
    expect(arriving.received(1)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(word(arriving, 1, 7)).toBe(0x0505_0505);
  });
});

requireOrSkip(needUserfaultfd(), needHugePages(2))(
  "a real huge page arrives whole for a thread that waits for its middle",
  async () => {
    await using _pages = await HugePages.add(2);
    using arriving = new ArrivingMemory({ pages: [1024], pageSize: HUGE_PAGE_BYTES, huge: true });
    await using guest = await startThread<typeof GuestMemory>(GUEST);
    const { placer, buffer } = arriving.placer(1);
    const block = arriving.block(0);
    buffer.view.setUint32(0, 77, true);
    const reading = guest.call("readWord", block.address + 300 * PAGE);
    expect(arriving.memory.events()).toMatchObject([{ kind: "fault" }]);
    for (let page = 0; page < 512; page++) {
      if (page === 300) placer.pages(block, page * PAGE, 0, 1);
      else placer.zeros(block, page * PAGE, 1);
    }
    expect(await reading).toBe(77);
    expect(arriving.missing).toBe(512);
    placer.zeros(block, 512 * PAGE, 512);
    expect(arriving.missing).toBe(0);
    expect(word(arriving, 0, 1023)).toBe(0);
    expect(placer.counts).toEqual({ exists: 0, retries: 0, dropped: 0 });
  },
);
