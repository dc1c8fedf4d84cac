/**
 * The memory of a guest that is arriving, with all that the destination's threads share about it:
 * blocks in one range that is registered with a userfaultfd, every page missing.
 */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { Placer } from "../../src/dest/placer.ts";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  WORD,
} from "../../src/dest/shared.ts";
import type { DestSharedData, PageState, PageStateData } from "../../src/dest/shared.ts";
import { AddressMap } from "../../src/ram/address-map.ts";
import type { RamBlock } from "../../src/ram/block.ts";
import { UserfaultMemory } from "./userfault-memory.ts";

const PAGE_BYTES = 4096;

export interface ArrivingOptions {
  /** Target pages of each block; 64 and 16 if absent. */
  pages?: readonly number[];
  /** Host page size of the blocks. */
  pageSize?: number;
  /** Whether it is real hugetlbfs memory; otherwise base pages serve as parts of huge ones. */
  huge?: boolean;
  /** Whether what is discarded is told of; true if absent. */
  heard?: boolean;
  /** More features of the userfaultfd. */
  features?: number;
}

export class ArrivingMemory implements Disposable {
  readonly data: DestSharedData = createDestShared();
  readonly shared = new DestShared(this.data);
  readonly blocks: RamBlock[];
  readonly pageData: PageStateData;
  readonly pages: PageState;
  readonly map: AddressMap;
  readonly memory: UserfaultMemory;

  constructor(options: ArrivingOptions = {}) {
    const { pages = [64, 16], pageSize = PAGE_BYTES, huge = false, heard = true } = options;
    const { features: more = 0 } = options;
    const total = pages.reduce((sum, count) => sum + count, 0) * PAGE_BYTES;
    const memoryPage = huge ? pageSize : PAGE_BYTES;
    const features =
      more |
      (heard ? UFFD.UFFD_FEATURE_EVENT_REMOVE : 0) |
      (huge ? UFFD.UFFD_FEATURE_MISSING_HUGETLBFS : 0);
    this.memory = new UserfaultMemory(total / memoryPage, features, memoryPage);
    let { address } = this.memory;
    this.blocks = pages.map((count, index) => {
      const block = { index, name: `block${index}`, length: count * PAGE_BYTES, pageSize, address };
      address += block.length;
      return block;
    });
    this.map = AddressMap.ofBlocks(this.blocks);
    this.pageData = createPageState(this.blocks);
    this.pages = attachPageState(this.pageData, this.blocks);
    const { control } = this.shared;
    Atomics.store(control, WORD.userfaultFd, this.memory.userfault.fd);
    Atomics.store(control, WORD.missing, total / PAGE_BYTES);
  }

  /** The block of an index; there must be one. */
  block(index: number): RamBlock {
    const block = this.blocks[index];
    if (block === undefined) throw new RangeError(`there is no block ${index}`);
    return block;
  }

  /** Pages that have not arrived, as the threads count them. */
  get missing(): number {
    return Atomics.load(this.shared.control, WORD.missing);
  }

  /** Pages that have arrived, or were discarded, of a block. */
  received(index: number): number[] {
    const { length } = this.block(index);
    return Array.from({ length: length / PAGE_BYTES }, (_, page) => page).filter((page) => {
      return this.pages.received[index]?.test(page);
    });
  }

  /** A placer, and the receive buffer of `bufferPages` pages that it takes data from. */
  placer(
    bufferPages: number,
    changes: { urgent?: boolean; foreign?: boolean; drainEvents?: () => void } = {},
  ): { placer: Placer; buffer: Scratch } {
    const buffer = mapScratch(bufferPages * PAGE_BYTES);
    const { shared, pages } = this;
    const never = (): void => {
      throw new Error("no event was expected");
    };
    const placer = new Placer({
      shared,
      pages,
      ...{ map: this.map, foreign: changes.foreign ?? false },
      buffer,
      times: shared.listenTimes,
      urgent: changes.urgent ?? false,
      drainEvents: changes.drainEvents ?? never,
    });
    return { placer, buffer };
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
  }
}
