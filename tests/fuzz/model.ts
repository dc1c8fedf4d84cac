/**
 * A small reading of a migration stream of its own, written from docs/wire.md and not from the
 * program: what memory and device state a stream leaves, and where its fields are. The program may
 * refuse what this accepts. What the program accepts must read just so here.
 */
import { Cursor, ModelError } from "./layout.ts";
import type { Layout } from "./layout.ts";
import { isComplete, ModelMemory } from "./model-memory.ts";
import type { ModelBlock, Repeats } from "./model-memory.ts";

const NOTHING = new Uint8Array(0);

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
  readonly #memory: ModelMemory;
  #package: Uint8Array | undefined;
  #ramEnded = false;
  /** The description of the devices has come. */
  isDescribed = false;

  constructor(cursor: Cursor, blocks: ModelBlock[], repeats: Repeats) {
    this.#in = cursor;
    this.#blocks = blocks;
    this.#memory = new ModelMemory(cursor, blocks, repeats);
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
    while (cursor.span("record", () => this.#memory.record())) {
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
    if (number === 6) this.#memory.discard(length);
    else if (number === 7) this.#packaged();
    else if (number === 2 && length === 4) this.#memory.choose(cursor.u32("ping"));
    else if (number === 3 && length === 16) {
      this.#memory.summary = cursor.u64("advise.summary");
      cursor.u64("advise.target");
    } else cursor.take(length, "command.payload");
  }

  #packaged(): void {
    const cursor = this.#in;
    const size = cursor.u32("package.size");
    const { at } = cursor;
    if (size > cursor.left) throw new ModelError("package");
    this.#package = cursor.bytes.subarray(at, at + size);
    this.#memory.switched = true;
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
