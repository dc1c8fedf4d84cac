/**
 * A small reading of a migration stream of its own, written from docs/wire.md and not from the
 * program: what memory and device state a stream leaves, and where its fields are. The program may
 * refuse what this accepts. What the program accepts must read just so here.
 */
import { inflateSync, zstdDecompressSync } from "node:zlib";

import { Cursor, ModelError } from "./layout.ts";
import type { Layout } from "./layout.ts";

export { ModelError } from "./layout.ts";

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);
const NOTHING = new Uint8Array(0);

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

export interface ModelGuest {
  machine: string;
  ending: "precopy" | "postcopy";
  blocks: ModelBlock[];
  /** FULL sections, one behind the other. */
  devices: Uint8Array;
  /** The package as it came, where there is one. */
  package: Uint8Array | undefined;
}

/**
 * Reads a whole stream. `layout` and `blocks` are filled as it goes, so that they are there of a
 * stream that breaks off. @throws ModelError where it is none.
 */
export function readModel(
  bytes: Uint8Array,
  layout: Layout = { fields: [], spans: [] },
  blocks: ModelBlock[] = [],
  repeats: Repeats = "last",
): ModelGuest {
  return new Model(new Cursor(bytes, layout), blocks, repeats).read();
}

function isComplete({ missing }: ModelBlock): boolean {
  return missing.size === 0;
}

/** Whether a stream is there from its first byte to its last. */
export function isWholeStream(bytes: Uint8Array): boolean {
  try {
    const model = new Model(new Cursor(bytes), [], "last");
    // Device state that is cut off may end like one that is whole: a QEMU describes it behind its end.
    return model.readAll().ending === "postcopy" || model.isDescribed;
  } catch (error) {
    if (error instanceof ModelError) return false;
    throw error;
  }
}

class Model {
  readonly #in: Cursor;
  readonly #blocks: ModelBlock[];
  readonly #repeats: Repeats;
  #summary: number | undefined;
  #last: ModelBlock | undefined;
  #package: Uint8Array | undefined;
  #ramEnded = false;
  /** The description of the devices has come. */
  isDescribed = false;
  /** The source has chosen to send page runs; compressed ones too. */
  #runs = false;
  #packedRuns = false;

  constructor(cursor: Cursor, blocks: ModelBlock[], repeats: Repeats) {
    this.#in = cursor;
    this.#blocks = blocks;
    this.#repeats = repeats;
  }

  /** Reads up to EOF, and what may follow it. */
  readAll(): ModelGuest {
    return this.#sections(this.#in.span("opening", () => this.#opening()));
  }

  /** Reads what a destination needs. */
  read(): ModelGuest {
    const machine = this.#in.span("opening", () => this.#opening());
    try {
      return this.#sections(machine);
    } catch (error) {
      // After the switch a guest that has all its pages needs its source no more.
      const isWhole = this.#package !== undefined && this.#blocks.every((each) => isComplete(each));
      if (error instanceof ModelError && isWhole) return this.#guest(machine, NOTHING);
      throw error;
    }
  }

  #sections(machine: string): ModelGuest {
    for (;;) {
      if (this.#ramEnded && this.#package === undefined) return this.#precopyEnd(machine);
      if (this.#in.peek() === 0) return this.#postcopyEnd(machine);
      this.#in.span("section", () => this.#section());
    }
  }

  #guest(machine: string, devices: Uint8Array): ModelGuest {
    const ending = this.#package === undefined ? "precopy" : "postcopy";
    return { machine, ending, blocks: this.#blocks, devices, package: this.#package };
  }

  #opening(): string {
    const cursor = this.#in;
    if (cursor.u32("magic") !== 0x5145564d) throw new ModelError("magic");
    if (cursor.u32("version") !== 3) throw new ModelError("version");
    if (cursor.peek() !== 7) return "";
    cursor.u8("configuration");
    const machine = cursor.text(cursor.u32("machine.length"), "machine");
    while (cursor.peek() === 5) this.#subsection();
    return machine;
  }

  #subsection(): void {
    const cursor = this.#in;
    cursor.u8("subsection");
    const name = cursor.str8("subsection.name");
    cursor.u32("subsection.version");
    if (name === "configuration/target-page-bits") cursor.u32("page.bits");
    else if (name === "configuration/uuid") cursor.take(16, "uuid");
    else if (name === "configuration/capabilities") {
      const count = cursor.u32("capabilities.count");
      for (let i = 0; i < count; i++) cursor.str8("capability");
    } else throw new ModelError(`subsection ${name}`);
  }

  #section(): void {
    const cursor = this.#in;
    const type = cursor.u8("section.type");
    if (type === 8) {
      this.#command();
      return;
    }
    if (type < 1 || type > 3) throw new ModelError(`section ${type}`);
    const id = cursor.u32("section.id");
    if (type === 1) {
      cursor.str8("section.name");
      cursor.u32("section.instance");
      cursor.u32("section.version");
    }
    while (cursor.span("record", () => this.#record())) {
      // Up to the record EOS.
    }
    if (cursor.u8("footer") !== 0x7e) throw new ModelError("footer");
    if (cursor.u32("footer.id") !== id) throw new ModelError("footer id");
    if (type === 3) this.#ramEnded = true;
  }

  #command(): void {
    const cursor = this.#in;
    const number = cursor.u16("command.number");
    const length = cursor.u16("command.length");
    if (number === 6) this.#discard(length);
    else if (number === 7) this.#packaged();
    else if (number === 2 && length === 4) this.#ping(cursor.u32("ping"));
    else if (number === 3 && length === 16) {
      this.#summary = cursor.u64("advise.summary");
      cursor.u64("advise.target");
    } else cursor.take(length, "command.payload");
  }

  /** What our own ends choose is in the value of a PING, and never taken back. */
  #ping(value: number): void {
    if (value >>> 16 !== 0x5045 || (value & 4) === 0) return;
    this.#runs = true;
    this.#packedRuns = (value & 8) !== 0;
  }

  #discard(length: number): void {
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

  #packaged(): void {
    const cursor = this.#in;
    const size = cursor.u32("package.size");
    const { at } = cursor;
    if (size > cursor.left) throw new ModelError("package");
    this.#package = cursor.bytes.subarray(at, at + size);
    cursor.take(Math.min(size, 5), "package.listen");
    this.#deviceHeaders(at + 5, at + size);
    cursor.at = at + size;
  }

  /** Fields of what looks like headers of devices between `from` and `end`: for mutations alone. */
  #deviceHeaders(from: number, end: number): void {
    const { bytes, layout } = this.#in;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let begun = -1;
    for (let at = from; at + 14 < end; at++) {
      const behindFooter = at === from || (at >= 5 && bytes[at - 5] === 0x7e);
      if (bytes[at] !== 4 || !behindFooter || (bytes[at + 5] ?? 0) === 0) continue;
      const name = bytes[at + 5] ?? 0;
      if (at + 14 + name > end || view.getUint32(at + 10 + name) > 0xffff) continue;
      if (begun >= 0) layout.spans.push({ at: begun, end: at, what: "device" });
      begun = at;
      for (const [offset, size, what] of [
        [0, 1, "device.type"],
        [1, 4, "device.id"],
        [5, 1, "device.name.length"],
        [6, name, "device.name"],
        [6 + name, 4, "device.instance"],
        [10 + name, 4, "device.version"],
      ] as const) {
        layout.fields.push({ at: at + offset, bytes: size, what });
      }
    }
    for (let at = end - 5; at >= from && bytes[at] === 8; at -= 9) {
      layout.fields.push({ at, bytes: 5, what: "package.command" });
    }
  }

  /** One record; false for EOS. */
  #record(): boolean {
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
      if (this.#summary !== undefined && this.#summary >= 2 * PAGE && this.#isPageSize()) {
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
    const switched = this.#package !== undefined;
    if (switched && this.#repeats === "first" && block.populated.has(page)) return;
    block.pages.set(page, content);
    if (switched || content !== ZEROS) block.populated.add(page);
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

  #precopyEnd(machine: string): ModelGuest {
    const cursor = this.#in;
    const { at, bytes } = cursor;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let eof = bytes.length - 6; eof >= at; eof--) {
      const isHeader = bytes[eof] === 0 && bytes[eof + 1] === 6;
      if (!isHeader || view.getUint32(eof + 2) !== bytes.length - eof - 6) continue;
      return this.#endAt(machine, at, eof);
    }
    return this.#endAt(machine, at, bytes.length - 1);
  }

  #endAt(machine: string, at: number, eof: number): ModelGuest {
    const cursor = this.#in;
    this.#deviceHeaders(at, eof);
    cursor.at = eof;
    cursor.u8("eof");
    if (cursor.left > 0) {
      this.isDescribed = true;
      cursor.u8("description.type");
      cursor.u32("description.length");
      cursor.take(cursor.left, "description");
    }
    return this.#guest(machine, cursor.bytes.subarray(at, eof));
  }

  #postcopyEnd(machine: string): ModelGuest {
    this.#in.u8("eof");
    if (this.#package === undefined || !this.#ramEnded) throw new ModelError("early EOF");
    return this.#guest(machine, NOTHING);
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
