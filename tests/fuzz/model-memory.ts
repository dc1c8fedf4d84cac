/** Guest memory as the model (model.ts) reads it: blocks, the records of their pages, what is discarded. */
import { inflateSync, zstdDecompressSync } from "node:zlib";

import { ModelError } from "./layout.ts";
import type { Cursor } from "./layout.ts";

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);

/** One RAM block: its pages by number; those that are not there are zeros. */
export interface ModelBlock {
  name: string;
  length: number;
  pageSize: number;
  pages: Map<number, Uint8Array>;
  /** Discarded, and not sent again. */
  missing: Set<number>;
  /** That have content, or had some since they were discarded: in memory, what is placed once stays. */
  populated: Set<number>;
}

/** Which content counts of a page that comes again after the switch, as none should. */
export type Repeats = "first" | "last";

/** Whether every page of a block is there. */
export function isComplete({ missing }: ModelBlock): boolean {
  return missing.size === 0;
}

export class ModelMemory {
  /** The page sizes that ADVISE gave. */
  summary: number | undefined;
  /** The package has come: the guest may run. */
  switched = false;
  readonly #in: Cursor;
  readonly #blocks: ModelBlock[];
  readonly #repeats: Repeats;
  /** The block of the record before. */
  #last: ModelBlock | undefined;
  /** The source has chosen to send page runs; compressed ones too. */
  #runs = false;
  #packedRuns = false;

  /** `blocks` is filled when their list comes. */
  constructor(cursor: Cursor, blocks: ModelBlock[], repeats: Repeats) {
    this.#in = cursor;
    this.#blocks = blocks;
    this.#repeats = repeats;
  }

  /** What our own ends choose is in the value of a PING, and never taken back. */
  choose(value: number): void {
    if (value >>> 16 !== 0x5045 || (value & 4) === 0) return;
    this.#runs = true;
    this.#packedRuns = (value & 8) !== 0;
  }

  discard(length: number): void {
    const cursor = this.#in;
    const end = cursor.at + length;
    cursor.u8("discard.version");
    const name = cursor.str8("discard.block");
    cursor.u8("discard.terminator");
    const block = this.#blocks.find((each) => each.name === name);
    if (block === undefined) throw new ModelError(`discard of ${name}`);
    while (cursor.at < end) {
      const first = cursor.u64("discard.start") / PAGE;
      const pages = Math.ceil(cursor.u64("discard.bytes") / PAGE);
      if ((first + pages) * PAGE > block.length) throw new ModelError("discard");
      for (let page = first; page < first + pages; page++) {
        block.pages.delete(page);
        block.populated.delete(page);
        block.missing.add(page);
      }
    }
  }

  /** One record; false for EOS. */
  record(): boolean {
    const cursor = this.#in;
    const head = cursor.take(8, "record.head");
    const view = new DataView(cursor.bytes.buffer, cursor.bytes.byteOffset);
    const flags = view.getUint32(head + 4) & 0xfff;
    const offset = Number(view.getBigUint64(head)) - flags;
    if ((flags & 0x400) !== 0 && this.#runs) {
      this.#run(flags & ~0x420, (flags & 0x20) === 0, offset);
      return true;
    }
    switch (flags & ~0x20) {
      case 0x10:
        return false;
      case 0x200:
        return true;
      case 4:
        this.#list(offset);
        return true;
      default:
        this.#page(flags, offset);
        return true;
    }
  }

  #list(total: number): void {
    const cursor = this.#in;
    cursor.layout.fields.push({ at: cursor.at - 8, bytes: 8, what: "list.total" });
    for (let rest = total; rest > 0;) {
      const name = cursor.span("block", () => cursor.str8("block.name"));
      const length = cursor.u64("block.length");
      let pageSize = PAGE;
      if (this.summary !== undefined && this.summary >= 2 * PAGE && this.#isPageSize()) {
        pageSize = cursor.u64("block.page");
      }
      if (length === 0 || length > rest) throw new ModelError("block length");
      this.#blocks.push({
        name,
        length,
        pageSize,
        pages: new Map(),
        missing: new Set(),
        populated: new Set(),
      });
      rest -= length;
    }
  }

  #isPageSize(): boolean {
    const cursor = this.#in;
    if (cursor.left < 8) return false;
    const view = new DataView(cursor.bytes.buffer, cursor.bytes.byteOffset);
    const size = Number(view.getBigUint64(cursor.at));
    return size > PAGE && size <= 2 ** 30 && Number.isInteger(Math.log2(size));
  }

  /** Many pages of one kind. */
  #run(kind: number, named: boolean, offset: number): void {
    const cursor = this.#in;
    const block = this.#locate(named, offset);
    const pages = cursor.u32("run.pages");
    const most = kind === 2 ? 0x4_0000 : kind === 8 ? 512 : 64;
    if (pages === 0 || pages > most || offset / PAGE + pages > Math.ceil(block.length / PAGE)) {
      throw new ModelError("run");
    }
    const data = this.#runData(kind, pages);
    for (let i = 0; i < pages; i++) {
      const content = data?.subarray(i * PAGE, (i + 1) * PAGE) ?? ZEROS;
      this.#keep(block, offset / PAGE + i, content);
    }
  }

  #runData(kind: number, pages: number): Uint8Array | undefined {
    const cursor = this.#in;
    if (kind === 2) return undefined;
    if (kind === 8) return cursor.slice(pages * PAGE, "run.data");
    if (kind !== 0x100 || !this.#packedRuns) throw new ModelError(`run of ${kind}`);
    const length = cursor.u32("run.bytes");
    if (length === 0 || length > pages * PAGE) throw new ModelError("run bytes");
    const frame = cursor.slice(length, "run.frame");
    let data: Uint8Array;
    try {
      data = zstdDecompressSync(frame, { maxOutputLength: pages * PAGE });
    } catch {
      throw new ModelError("run frame");
    }
    if (data.length !== pages * PAGE) throw new ModelError("run length");
    return data;
  }

  #locate(named: boolean, offset: number): ModelBlock {
    if (named) {
      const name = this.#in.str8("record.block");
      this.#last = this.#blocks.find((each) => each.name === name);
    }
    const block = this.#last;
    if (block === undefined || offset >= block.length) throw new ModelError("page");
    return block;
  }

  #page(flags: number, offset: number): void {
    const block = this.#locate((flags & 0x20) === 0, offset);
    const page = offset / PAGE;
    this.#keep(block, page, this.#content(flags & ~0x20, block.pages.get(page) ?? ZEROS));
  }

  #keep(block: ModelBlock, page: number, content: Uint8Array): void {
    block.missing.delete(page);
    if (this.switched && this.#repeats === "first" && block.populated.has(page)) return;
    block.pages.set(page, content);
    if (this.switched || content !== ZEROS) block.populated.add(page);
  }

  #content(kind: number, old: Uint8Array): Uint8Array {
    const cursor = this.#in;
    switch (kind) {
      case 2:
        if (cursor.u8("record.fill") !== 0) throw new ModelError("fill");
        return ZEROS;
      case 8:
        return cursor.slice(PAGE, "page");
      case 0x40: {
        cursor.u8("xbzrle.encoding");
        return patched(old, cursor.slice(cursor.u16("xbzrle.length"), "xbzrle"));
      }
      case 0x100:
        return unpacked(cursor.slice(cursor.u32("compressed.length"), "compressed"));
      default:
        throw new ModelError(`flags ${kind}`);
    }
  }
}

/** XBZRLE: runs that stay and runs that change, by turns. */
function patched(old: Uint8Array, payload: Uint8Array): Uint8Array {
  const page = old.slice();
  let [from, to] = [0, 0];
  const length = (): number => {
    const low = payload[from++] ?? 0;
    return low < 0x80 ? low : (low & 0x7f) | ((payload[from++] ?? 0) << 7);
  };
  while (from < payload.length) {
    to += length();
    const changed = length();
    if (to + changed > PAGE || from + changed > payload.length) throw new ModelError("xbzrle");
    page.set(payload.subarray(from, from + changed), to);
    from += changed;
    to += changed;
  }
  return page;
}

function unpacked(payload: Uint8Array): Uint8Array {
  try {
    const page = inflateSync(payload, { maxOutputLength: PAGE });
    if (page.length === PAGE) return new Uint8Array(page);
  } catch {
    // Damaged, or more than a page.
  }
  throw new ModelError("compressed");
}
