/** Where the pages of a guest that is sent come from: its memory, or what was stored of it. */
import type { RamBlock } from "./block.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import { MemoryWindows } from "./windows.ts";

/** Target pages by block and offset. One thread uses a PageReader. */
export interface PageReader {
  /** Whether the page holds only zeros. */
  isZero(block: RamBlock, offset: number): boolean;
  /**
   * Copies the page to `target[at, at + 4096)`. @throws PostcopyError when it cannot be read, or
   * is not what was stored; what is in `target` then must not be sent.
   */
  copyPage(block: RamBlock, offset: number, target: Uint8Array, at: number): void;
  /**
   * Copies `count` consecutive pages, none of them zeros, the first to `target.bytes[at, at + 4096)` and
   * each further one `stride` bytes behind the one before; throws as `copyPage` does. Where there is a
   * cheaper way for many pages than one by one.
   */
  copyPages?(
    block: RamBlock,
    offset: number,
    count: number,
    target: Scratch,
    at: number,
    stride: number,
  ): void;
  /**
   * Where the page lies in this process for as long as the guest is sent: a write can gather it
   * from there. Pages that are read from a file lie nowhere, and are always copied.
   */
  addressOf?(block: RamBlock, offset: number): number;
}

/** The memory of a guest that is mapped in this process. */
export class GuestMemory implements PageReader {
  readonly #windows: readonly MemoryWindows[];

  /** All blocks of the guest, in the order of their index. */
  constructor(blocks: readonly RamBlock[]) {
    this.#windows = blocks.map(({ address, length }) => new MemoryWindows(address, length));
  }

  isZero(block: RamBlock, offset: number): boolean {
    return this.#of(block).isZeroPage(offset);
  }

  copyPage(block: RamBlock, offset: number, target: Uint8Array, at: number): void {
    this.#of(block).readPage(offset, target, at);
  }

  addressOf(block: RamBlock, offset: number): number {
    return block.address + offset;
  }

  #of(block: RamBlock): MemoryWindows {
    const windows = this.#windows[block.index];
    if (windows === undefined) throw new Error(`no memory for block ${block.name}`);
    return windows;
  }
}
