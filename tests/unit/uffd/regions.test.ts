/** Which memory of the source goes into which region of a VMM. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { UffdDestGuest } from "../../../src/guests/uffd/dest-guest.ts";
import type { Region } from "../../../src/guests/uffd/handover.ts";
import { describeRest, placeRegions } from "../../../src/guests/uffd/regions.ts";
import { FIRECRACKER_MACHINE } from "../../../src/guests/stored/memory-only.ts";
import { FEATURE } from "../../../src/stream/hello.ts";
import { PostcopyError } from "../../../src/util/errors.ts";

const PAGE = 4096;
const HUGE = 2 * 1024 * 1024;

function blocksOf(lengths: readonly number[], pageSize = PAGE) {
  return lengths.map((length, index) => {
    return { index, name: `block${index}`, length, pageSize, address: 0 };
  });
}

function region(offset: number, length: number, pageSize = PAGE): Region {
  return { address: 2 ** 40 + 3 * offset, length, offset, pageSize };
}

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof PostcopyError) return error.code;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("the regions of a VMM", () => {
  test("count over the blocks of the source, one behind the other", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(
        lengths,
        fc.nat({ max: 40 }),
        fc.integer({ min: 1, max: 40 }),
        (all, from, count) => {
          const pages = all.reduce((sum, each) => sum + each, 0);
          fc.pre(from + count <= pages);
          const blocks = blocksOf(all.map((each) => each * PAGE));
          const wanted = region(from * PAGE, count * PAGE);
          // Every page of all blocks, by its place among all.
          const places = blocks.flatMap(({ index, length }) =>
            Array.from({ length: length / PAGE }, (_, page) => `${index}:${page}`),
          );
          const got = placeRegions([wanted], blocks).flatMap((piece) =>
            Array.from({ length: piece.length / PAGE }, (_, page) => ({
              at: (piece.address - wanted.address) / PAGE + page,
              place: `${piece.block}:${piece.offset / PAGE + page}`,
            })),
          );
          const expected = places.slice(from, from + count).map((place, at) => ({ at, place }));
          expect(got).toEqual(expected);
        },
      ),
    );
  });

  test("end where the memory of the source does", () => {
    const blocks = blocksOf([4 * PAGE, 4 * PAGE]);
    expect(placeRegions([region(0, 8 * PAGE)], blocks)).toHaveLength(2);
    expect(codeOf(() => placeRegions([region(PAGE, 8 * PAGE)], blocks))).toBe(
      "REGION_BEYOND_MEMORY",
    );
  });

  test("that are for a part of the source's memory alone are mentioned", () => {
    const blocks = blocksOf([6 * PAGE, 2 * PAGE]);
    const all = [region(0, 3 * PAGE), region(3 * PAGE, 5 * PAGE)];
    expect(describeRest(all, blocks)).toBeUndefined();
    expect(describeRest(all.slice(1), blocks)).toStartWith(
      "The source has 32 KiB of memory, and the VMM has handed over 20 KiB: the rest is dropped",
    );
  });

  test("of huge pages lie in blocks that consist of such", () => {
    const huge = blocksOf([4 * HUGE], HUGE);
    expect(placeRegions([region(HUGE, HUGE, HUGE)], huge)).toHaveLength(1);
    const odd = [...blocksOf([3 * PAGE]), { ...blocksOf([0, 4 * HUGE], HUGE)[1]! }];
    expect(codeOf(() => placeRegions([region(0, HUGE, HUGE)], odd))).toBe("PAGE_SIZE");
    expect(codeOf(() => placeRegions([region(HUGE, HUGE, HUGE)], odd))).toBe("PAGE_SIZE");
  });
});

describe("a VMM's guest", () => {
  const guestOf = (...regions: Region[]): UffdDestGuest =>
    new UffdDestGuest({ regions, userfaultFd: -1 });

  test("says which pages it needs", () => {
    expect(guestOf(region(0, PAGE)).needs).toBe(FEATURE.smallPages);
    expect(guestOf(region(0, HUGE, HUGE)).needs).toBe(FEATURE.largePages);
  });

  test("has pages of one size, and of one that can be filled", () => {
    const mixed = [region(0, HUGE, HUGE), region(HUGE, PAGE)];
    expect(codeOf(() => guestOf(...mixed))).toBe("MIXED_PAGES");
    expect(codeOf(() => guestOf(region(0, 2 ** 30, 2 ** 30)))).toBe("PAGE_SIZE");
  });

  test("has use for all that a VMM has saved, but not for all of a QEMU", () => {
    const setup = [{ name: "ram", length: 8 * PAGE, pageSize: PAGE }];
    const noticeOf = (machine: string, pages: number): string | undefined => {
      const guest = guestOf(region(0, pages * PAGE));
      guest.configure({ machine, capabilities: [] });
      guest.prepareMemory(setup);
      return guest.foreign().notice;
    };
    expect(noticeOf(FIRECRACKER_MACHINE, 8)).toBeUndefined();
    expect(noticeOf(FIRECRACKER_MACHINE, 7)).toContain("the rest is dropped");
    expect(noticeOf("pc-i440fx-7.2", 7)).toBeUndefined();
  });

  test("takes blocks by its own pages, whatever those were that were saved", () => {
    const setup = [
      { name: "pc.ram", length: 8 * HUGE, pageSize: HUGE },
      { name: "pc.bios", length: 64 * PAGE, pageSize: PAGE },
    ];
    const sizes = (guest: UffdDestGuest): number[] =>
      guest.prepareMemory(setup).map(({ pageSize }) => pageSize);
    expect(sizes(guestOf(region(0, PAGE)))).toEqual([PAGE, PAGE]);
    expect(sizes(guestOf(region(0, HUGE, HUGE)))).toEqual([HUGE, PAGE]);
  });
});
