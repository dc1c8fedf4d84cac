/** Precopy into memory of this process: pages are written where they belong, again and again. */
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { RamBlock } from "../ram/block.ts";
import type { MemoryWindows } from "../ram/windows.ts";
import type { PageSink } from "./guest.ts";
import type { PageState } from "./shared.ts";

export class MemorySink implements PageSink {
  /** Pages that came and were not here, since the owner last set it to 0. */
  fresh = 0;
  readonly #windows: readonly MemoryWindows[];
  readonly #pages: PageState;
  readonly #buffer: Uint8Array;

  /** `windows` are the guest's memory by block; `buffer` is the receive buffer of the channel. */
  constructor(windows: readonly MemoryWindows[], pages: PageState, buffer: Uint8Array) {
    this.#windows = windows;
    this.#pages = pages;
    this.#buffer = buffer;
  }

  pages(block: RamBlock, offset: number, at: number, count: number): void {
    const data = this.#buffer.subarray(at, at + count * TARGET_PAGE_SIZE);
    const first = offset / TARGET_PAGE_SIZE;
    this.#windows[block.index]?.write(offset, data);
    const received = this.#pages.received[block.index];
    this.fresh += count - (received?.countRange(first, count) ?? 0);
    received?.setRange(first, count);
    this.#pages.unpopulated[block.index]?.clearRange(first, count);
  }

  readPage(block: RamBlock, offset: number, page: Uint8Array): void {
    this.#windows[block.index]?.readPage(offset, page, 0);
  }

  zeros(block: RamBlock, offset: number, count: number): void {
    const first = offset / TARGET_PAGE_SIZE;
    for (let page = first; page < first + count; page++) this.#zero(block, page);
  }

  /** A page that never arrived is zero already: clearing it would only make it resident. */
  #zero(block: RamBlock, page: number): void {
    if (this.#pages.received[block.index]?.set(page)) {
      this.fresh++;
      this.#pages.unpopulated[block.index]?.set(page);
    } else if (!this.#pages.unpopulated[block.index]?.test(page)) {
      this.#windows[block.index]?.clear(page * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE);
    }
  }
}
