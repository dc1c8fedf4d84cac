/**
 * Where a page of the guest lies: global page numbers run through all RAM blocks in order. A block
 * may be larger than one ArrayBuffer can be, so each block is seen through windows of at most
 * 1 GiB.
 */
import { pageWindow, type PageWindow } from "./pattern.ts";
import { STRESS_PAGE_BYTES, STRESS_PAGE_WORDS } from "./parameters.ts";

/** A multiple of every page size, and well below the 4 GiB at which Bun's ArrayBuffers end. */
const WINDOW_BYTES = 2 ** 30;

/** One RAM block in this process: its address and length in bytes. */
export interface MemoryRange {
  address: number;
  length: number;
}

/** Makes memory at an address reachable: an ArrayBuffer over exactly [address, address + length). */
export type MemoryView = (address: number, length: number) => ArrayBufferLike;

interface MappedWindow extends PageWindow {
  readonly address: number;
  readonly firstPage: number;
  readonly pages: number;
}

/** All memory of a guest, for one thread: `seek` sets `window`, `word` and `address` to a page. */
export class PageMap {
  /** Pages of all blocks together. */
  readonly pages: number;
  /** The page that seek was last given: words[word, word + 1024) of the window. */
  window: PageWindow;
  word = 0;
  /** Address of the page in this process. */
  address: number;
  readonly #windows: MappedWindow[] = [];
  #current: MappedWindow;

  /** Throws RangeError when a block is not whole pages or a view has another length. */
  constructor(blocks: readonly MemoryRange[], view: MemoryView) {
    let pages = 0;
    for (const block of blocks) {
      for (let offset = 0; offset < block.length; offset += WINDOW_BYTES) {
        const address = block.address + offset;
        const length = Math.min(WINDOW_BYTES, block.length - offset);
        const buffer = view(address, length);
        if (buffer.byteLength !== length) {
          throw new RangeError(`a view of ${buffer.byteLength} bytes instead of ${length}`);
        }
        const windowPages = length / STRESS_PAGE_BYTES;
        this.#windows.push({
          ...pageWindow(buffer),
          address,
          firstPage: pages,
          pages: windowPages,
        });
        pages += windowPages;
      }
    }
    const first = this.#windows[0];
    if (first === undefined) throw new RangeError("a guest without memory");
    this.pages = pages;
    this.#current = first;
    this.window = first;
    this.address = first.address;
  }

  /** Goes to a page: 0 <= page < pages, or RangeError. */
  seek(page: number): void {
    let current = this.#current;
    let index = page - current.firstPage;
    if (!(index >= 0 && index < current.pages)) {
      current = this.#find(page);
      index = page - current.firstPage;
      this.#current = current;
      this.window = current;
    }
    this.word = index * STRESS_PAGE_WORDS;
    this.address = current.address + index * STRESS_PAGE_BYTES;
  }

  /** Binary search for the last window that does not start behind the page. */
  #find(page: number): MappedWindow {
    if (!(page >= 0 && page < this.pages)) {
      throw new RangeError(`page ${page} of a guest of ${this.pages} pages`);
    }
    let low = 0;
    let high = this.#windows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#windows[middle]!.firstPage <= page) low = middle;
      else high = middle - 1;
    }
    return this.#windows[low]!;
  }
}
