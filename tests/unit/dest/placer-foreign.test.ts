/** Placing into a VMM's memory that is not what was handed over: nothing of it is taken for received. */
import { describe, expect } from "bun:test";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { MemoryChanges } from "../../../src/dest/memory-changes.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { ArrivingMemory } from "../../helpers/arriving-memory.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";

const PAGE = 4096;
const foreignTest = requireOrSkip(needUserfaultfd());

function codeOf(act: () => void): string {
  try {
    act();
  } catch (error) {
    if (error instanceof PostcopyError) return error.code;
    throw error;
  }
  throw new Error("it was not refused");
}

function unmap(address: number, length: number): void {
  expect(syscall(NR.munmap, address, length)).toBe(0);
}

describe("a page of a VMM", () => {
  foreignTest("that is mapped and not registered fails by name", () => {
    using arriving = new ArrivingMemory();
    const { placer } = arriving.placer(8, { foreign: true });
    const block = arriving.block(0);
    arriving.memory.userfault.unregister(block.address + 4 * PAGE, 60 * PAGE);
    expect(codeOf(() => placer.pages(block, 0, 0, 8))).toBe("NOT_REGISTERED");
    expect(arriving.received(0)).toEqual([0, 1, 2, 3]);
  });

  foreignTest("that was unmapped without a word is dropped", () => {
    using arriving = new ArrivingMemory();
    const { placer } = arriving.placer(8, { foreign: true });
    const block = arriving.block(0);
    unmap(block.address + 4 * PAGE, 2 * PAGE);
    placer.pages(block, 0, 0, 8);
    expect(placer.counts.dropped).toBe(2);
    expect(arriving.received(0)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  foreignTest("is never gone without a word where that would have been heard", () => {
    const features = UFFD.UFFD_FEATURE_EVENT_UNMAP | UFFD.UFFD_FEATURE_EVENT_REMAP;
    using arriving = new ArrivingMemory({ features });
    const { placer } = arriving.placer(1, { foreign: true });
    const block = arriving.block(0);
    // Nobody is told of what is not registered.
    arriving.memory.userfault.unregister(block.address + 4 * PAGE, 2 * PAGE);
    unmap(block.address + 4 * PAGE, 2 * PAGE);
    expect(codeOf(() => placer.zeros(block, 0, 8))).toBe("NOT_REGISTERED");
    expect(placer.counts.dropped).toBe(0);
  });

  foreignTest("of which a part is given back fails by name, before that is noted", () => {
    using arriving = new ArrivingMemory({ pages: [16, 8], pageSize: 4 * PAGE });
    const changes = new MemoryChanges(arriving, arriving.memory.userfault);
    const { address } = arriving.block(1);
    for (const [first, end] of [
      [-4, 1],
      [1, 8],
      [5, 6],
    ] as const) {
      const remove = (): void => changes.noteRemoved(address + first * PAGE, address + end * PAGE);
      expect(codeOf(remove)).toBe("PART_OF_PAGE");
    }
    expect(arriving.missing).toBe(24);
    changes.noteRemoved(address - 4 * PAGE, address + 4 * PAGE);
    expect(arriving.received(1)).toEqual([0, 1, 2, 3]);
  });
});
