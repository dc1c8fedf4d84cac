/**
 * Composes RAM records for one write. Headers lie in scratch memory; pages either stay where they
 * are in guest memory and are gathered by writev(2), or are copied behind their headers. Gathering
 * saves a copy; but where the kernel is slow at reaching user memory for the first time (shadow
 * page tables of a nested host) the copy, made in user mode, is the cheaper way. See copy-chooser.ts
 * for who decides; what is read from a file is always copied. Nothing is allocated a page, but
 * by a reader of files, for the look at its checksum. One thread uses a RamWriter, for one channel.
 */
import { GatherList, IOVEC_COUNT_MAX } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import type { RamBlock } from "../ram/block.ts";
import type { PageReader } from "../ram/page-reader.ts";
import { KIND } from "../report/moved-pages.ts";
import type { Kind, MovedRuns } from "../report/moved-pages.ts";
import {
  PACKED_RUN_PAGES_MAX,
  RAM_FLAG,
  RUN_PAGES_MAX,
  SECTION,
  TARGET_PAGE_SIZE,
} from "../stream/constants.ts";
import { PAGE_RUN_HEADER_BYTES_MAX, putPageRun } from "../stream/page-run.ts";
import type { PageRun } from "../stream/page-run.ts";
import { putNamedRamHeader, putRamHeader, RAM_HEADER_BYTES_MAX } from "../stream/ram-record.ts";
import type { RunPacker } from "./run-packer.ts";

/** Headers, and copies of some 300 pages; memory that is not used is never touched. */
const SCRATCH_BYTES = 1280 * 1024;
const HEADER_BYTES = 8;
/** A page of the block of the record before. */
const RECORD_BYTES = HEADER_BYTES + TARGET_PAGE_SIZE;
const SECTION_HEADER_BYTES = 5;
/** Room kept for the end of a section: EOS and footer. */
const TRAILER_BYTES = 16;
/** Gather pieces kept for the end of a section. */
const TRAILER_PIECES = 1;

export class RamWriter {
  /** Pages since `begin`, by kind. */
  normal = 0;
  zero = 0;
  /** Of the normal ones, those that went compressed. */
  packed = 0;
  /** Whether pages that could be gathered are copied; to be changed only before `begin`. */
  copying = true;
  /** Why pages are sent, for `moved`. */
  kind: Kind = KIND.push;
  /** Whether consecutive pages go as one record, which only an end of ours that chose it reads. */
  runs = false;
  /** Copies that are written at once: what is written, the peer can work on. */
  pieceBytes = SCRATCH_BYTES;
  /** Compresses runs, where both ends chose that and the link is slow. */
  packer: RunPacker | undefined;
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
    this.packed = 0;
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
      this.#used + PAGE_RUN_HEADER_BYTES_MAX + TARGET_PAGE_SIZE + TRAILER_BYTES < this.pieceBytes
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
    this.#data(block, offset, 1);
    this.normal++;
  }

  /**
   * Adds the first of `count` consecutive target pages at `offset` of a block: as many as are of one
   * kind where runs are sent, or where pages are read together; else one. Returns how many it took;
   * throws as `page` does.
   */
  pages(block: RamBlock, offset: number, count: number): number {
    if (!this.runs && count > 1 && this.#pages.copyPages !== undefined) {
      return this.#records(block, offset, count);
    }
    if (!this.runs || (count === 1 && this.packer === undefined)) {
      this.page(block, offset);
      return 1;
    }
    const zero = this.#pages.isZero(block, offset);
    const taken = this.#alike(block, offset, zero ? count : Math.min(count, this.#roomForPages()));
    if (zero) {
      this.#runHeader(block, "zero", offset, taken);
      this.zero += taken;
    } else {
      const { packer } = this;
      const frame = packer?.pack(this.#pages, block, offset, taken);
      if (frame === undefined) {
        this.#runHeader(block, "plain", offset, taken);
        if (packer === undefined || this.canGather) this.#data(block, offset, taken);
        else this.#append(packer.read(taken));
      } else {
        this.#runHeader(block, "zstd", offset, taken, frame.length);
        this.#append(frame);
        this.packed += taken;
      }
      this.normal += taken;
    }
    this.#moved?.add(this.kind, block, offset, taken);
    return taken;
  }

  /** How many of `count` pages, from the first on, are of its kind: zeros, or not. */
  #alike(block: RamBlock, offset: number, count: number): number {
    const pages = this.#pages;
    const zero = pages.isZero(block, offset);
    for (let alike = 1; alike < count; alike++) {
      if (pages.isZero(block, offset + alike * TARGET_PAGE_SIZE) !== zero) return alike;
    }
    return Math.max(count, 1);
  }

  /** Adds pages as records of their own, whose data are read together; returns how many. */
  #records(block: RamBlock, offset: number, count: number): number {
    if (this.#pages.isZero(block, offset)) {
      this.page(block, offset);
      return 1;
    }
    const taken = this.#alike(block, offset, Math.min(count, this.#roomForRecords()));
    this.#header(block, offset, RAM_FLAG.page);
    const at = this.#used;
    for (let page = 1; page < taken; page++) {
      const flags = RAM_FLAG.page | RAM_FLAG.continue;
      const header = at + page * RECORD_BYTES - HEADER_BYTES;
      putRamHeader(this.#scratch.view, header, offset + page * TARGET_PAGE_SIZE, flags);
    }
    this.#pages.copyPages?.(block, offset, taken, this.#scratch, at, RECORD_BYTES);
    this.#used = at + taken * RECORD_BYTES - HEADER_BYTES;
    this.normal += taken;
    this.#moved?.add(this.kind, block, offset, taken);
    return taken;
  }

  /** Has a packer pack what `pages` would send of these as they are, for what that comes to. */
  tryPacking(packer: RunPacker, block: RamBlock, offset: number, count: number): void {
    let full = 0;
    while (full < count && !this.#pages.isZero(block, offset + full * TARGET_PAGE_SIZE)) full++;
    if (full > 0) packer.pack(this.#pages, block, offset, full);
  }

  /** Pages of a run that still fit: those that are gathered take no room. */
  #roomForPages(): number {
    if (!this.copying && this.canGather && this.packer === undefined) return RUN_PAGES_MAX;
    const most = this.packer === undefined ? RUN_PAGES_MAX : PACKED_RUN_PAGES_MAX;
    const room = this.pieceBytes - this.#used - PAGE_RUN_HEADER_BYTES_MAX - TRAILER_BYTES;
    return Math.min(most, Math.floor(room / TARGET_PAGE_SIZE));
  }

  /** The first may name its block. */
  #roomForRecords(): number {
    const room = this.pieceBytes - this.#used - RAM_HEADER_BYTES_MAX - TRAILER_BYTES;
    return Math.floor(room / RECORD_BYTES);
  }

  #runHeader(
    block: RamBlock,
    kind: PageRun["kind"],
    offset: number,
    pages: number,
    frameBytes = 0,
  ): void {
    const { bytes, view } = this.#scratch;
    const name = block === this.#block ? undefined : block.name;
    this.#block = block;
    this.#used += putPageRun(bytes, view, this.#used, { kind, offset, pages }, name, frameBytes);
  }

  /** Adds the bytes of consecutive pages. */
  #data(block: RamBlock, offset: number, count: number): void {
    const pages = this.#pages;
    if (!this.copying && pages.addressOf !== undefined) {
      this.#flush();
      this.#list.add(pages.addressOf(block, offset), count * TARGET_PAGE_SIZE);
      return;
    }
    if (count > 1 && pages.copyPages !== undefined) {
      pages.copyPages(block, offset, count, this.#scratch, this.#used, TARGET_PAGE_SIZE);
      this.#used += count * TARGET_PAGE_SIZE;
      return;
    }
    for (let page = 0; page < count; page++) {
      pages.copyPage(block, offset + page * TARGET_PAGE_SIZE, this.#scratch.bytes, this.#used);
      this.#used += TARGET_PAGE_SIZE;
    }
  }

  #append(bytes: Uint8Array): void {
    this.#scratch.bytes.set(bytes, this.#used);
    this.#used += bytes.length;
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
