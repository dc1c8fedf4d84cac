/**
 * Composes RAM records for one write. Headers lie in scratch memory; pages either stay where they
 * are in guest memory and are gathered by writev(2), or are copied behind their headers. Gathering
 * saves a copy; but where the kernel is slow at reaching user memory for the first time (shadow
 * page tables of a nested host) the copy, made in user mode, is the cheaper way. See copy-chooser.ts
 * for who decides; what is read from a file is always copied. Nothing is allocated a page. One
 * thread uses a RamWriter, for one channel.
 */
import { GatherList, IOVEC_COUNT_MAX } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { RamBlock } from "../ram/block.ts";
import type { PageReader } from "../ram/page-reader.ts";
import { KIND } from "../report/moved-pages.ts";
import type { Kind, MovedRuns } from "../report/moved-pages.ts";
import { RAM_FLAG, SECTION, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { RAM_HEADER_BYTES_MAX, putNamedRamHeader, putRamHeader } from "../stream/ram-record.ts";

/** Headers, and copies of some 300 pages; memory that is not used is never touched. */
const SCRATCH_BYTES = 1280 * 1024;
const HEADER_BYTES = 8;
const SECTION_HEADER_BYTES = 5;
/** Room kept for the end of a section: EOS and footer. */
const TRAILER_BYTES = 16;
/** Gather pieces kept for the end of a section. */
const TRAILER_PIECES = 1;

export class RamWriter {
  /** Pages since `begin`, by kind. */
  normal = 0;
  zero = 0;
  /** Whether pages that could be gathered are copied; to be changed only before `begin`. */
  copying = true;
  /** Why pages are sent, for `moved`. */
  kind: Kind = KIND.push;
  readonly #pages: PageReader;
  readonly #moved: MovedRuns | undefined;
  readonly #scratch = mapScratch(SCRATCH_BYTES);
  readonly #list = new GatherList(IOVEC_COUNT_MAX);
  /** Scratch bytes [#pending, #used) are not in the gather list yet. */
  #pending = 0;
  #used = 0;
  #block: RamBlock | undefined;
  #sectionId: number | undefined;

  /** `pages` is where the guest's pages come from; `moved` is told which of them are sent. */
  constructor(pages: PageReader, moved?: MovedRuns) {
    this.#pages = pages;
    this.#moved = moved;
  }

  /**
   * Begins a PART section, or bare records for the urgent channel when `sectionId` is undefined.
   * The first record of a section names its block: another thread may have written in between. On
   * the urgent channel the block of the last record holds on.
   */
  begin(sectionId: number | undefined, type: number = SECTION.part): void {
    this.normal = 0;
    this.zero = 0;
    this.#list.clear();
    this.#pending = 0;
    this.#used = 0;
    this.#sectionId = sectionId;
    if (sectionId === undefined) return;
    this.#block = undefined;
    const { view } = this.#scratch;
    view.setUint8(0, type);
    view.setUint32(1, sectionId);
    this.#used = SECTION_HEADER_BYTES;
  }

  /** Whether the pages lie where a write can gather them from. */
  get canGather(): boolean {
    return this.#pages.addressOf !== undefined;
  }

  /** Whether another page still fits before `finish`. */
  get hasRoom(): boolean {
    return (
      this.#list.room > TRAILER_PIECES + 2 &&
      this.#used + RAM_HEADER_BYTES_MAX + TARGET_PAGE_SIZE + TRAILER_BYTES < SCRATCH_BYTES
    );
  }

  /**
   * Adds the target page at `offset` of a block, as ZERO when it holds only zeros. What the reader
   * throws goes up; then nothing of this section may be written any more.
   */
  page(block: RamBlock, offset: number): void {
    const pages = this.#pages;
    this.#moved?.add(this.kind, block, offset, 1);
    if (pages.isZero(block, offset)) {
      this.#header(block, offset, RAM_FLAG.zero);
      this.#scratch.bytes[this.#used++] = 0;
      this.zero++;
      return;
    }
    this.#header(block, offset, RAM_FLAG.page);
    if (this.copying || pages.addressOf === undefined) {
      pages.copyPage(block, offset, this.#scratch.bytes, this.#used);
      this.#used += TARGET_PAGE_SIZE;
    } else {
      this.#flush();
      this.#list.add(pages.addressOf(block, offset), TARGET_PAGE_SIZE);
    }
    this.normal++;
  }

  #header(block: RamBlock, offset: number, flags: number): void {
    const { bytes, view } = this.#scratch;
    if (block === this.#block) {
      putRamHeader(view, this.#used, offset, flags | RAM_FLAG.continue);
      this.#used += HEADER_BYTES;
      return;
    }
    this.#block = block;
    this.#used += putNamedRamHeader(bytes, view, this.#used, offset, flags, block.name);
  }

  #flush(): void {
    if (this.#used === this.#pending) return;
    this.#list.add(this.#scratch.address + this.#pending, this.#used - this.#pending);
    this.#pending = this.#used;
  }

  /** Ends the section, if there is one, and returns what is to be written. */
  finish(): GatherList {
    this.#moved?.flush();
    if (this.#sectionId !== undefined) {
      const { view } = this.#scratch;
      putRamHeader(view, this.#used, 0, RAM_FLAG.endOfSection);
      view.setUint8(this.#used + HEADER_BYTES, SECTION.footer);
      view.setUint32(this.#used + HEADER_BYTES + 1, this.#sectionId);
      this.#used += HEADER_BYTES + SECTION_HEADER_BYTES;
    }
    this.#flush();
    return this.#list;
  }

  /** The end of the urgent channel: an EOS record, which QEMU 7.2 waits for. */
  finishUrgent(): GatherList {
    this.begin(undefined);
    putRamHeader(this.#scratch.view, 0, 0, RAM_FLAG.endOfSection);
    this.#used = HEADER_BYTES;
    return this.finish();
  }
}
