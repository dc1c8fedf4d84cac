/** Receives what a source sends on one channel and keeps it, page by page. */
import type { Channel } from "../../src/channel/channel.ts";
import { RamLoader } from "../../src/dest/ram-loader.ts";
import type { LoadEnd } from "../../src/dest/ram-loader.ts";
import type { RamBlock } from "../../src/ram/block.ts";
import { readFooter, readSectionHeader } from "../../src/stream/section.ts";

const PAGE_BYTES = 4096;

/** A page as it came: where, and its first word. */
export interface Received {
  block: number;
  page: number;
  word: number;
  zero: boolean;
}

export class PageReceiver {
  readonly pages: Received[] = [];
  /** Pages that were not the same word throughout. */
  readonly torn: Received[] = [];
  /** Sections by kind, in order. */
  readonly sections: string[] = [];
  readonly #channel: Channel;
  readonly #loader: RamLoader;

  constructor(channel: Channel, blocks: readonly RamBlock[]) {
    this.#channel = channel;
    this.#loader = new RamLoader(channel);
    this.#loader.blocks = blocks;
    this.#loader.runs = true;
    this.#loader.packedRuns = true;
    this.#loader.sink = {
      pages: (block, offset, at, count) => this.#keep(block, offset, at, count),
      zeros: (block, offset, count) => {
        for (let i = 0; i < count; i++) {
          const page = offset / PAGE_BYTES + i;
          this.pages.push({ block: block.index, page, word: 0, zero: true });
        }
      },
    };
  }

  #keep(block: RamBlock, offset: number, at: number, count: number): void {
    const { bytes } = this.#channel.buffer;
    for (let i = 0; i < count; i++) {
      const from = at + i * PAGE_BYTES;
      // A copy, as records need not be aligned.
      const words = new Uint32Array(bytes.slice(from, from + PAGE_BYTES).buffer);
      const word = words[0] ?? -1;
      const one = { block: block.index, page: offset / PAGE_BYTES + i, word, zero: false };
      this.pages.push(one);
      if (words.some((each) => each !== word)) this.torn.push(one);
    }
  }

  /** Loads records until the body ends. */
  body(): LoadEnd {
    const { reader } = this.#channel;
    for (;;) {
      const end = this.#loader.load();
      if (end !== "needs more") return end;
      reader.ensure(reader.available + 1);
    }
  }

  /** Reads the sections of the main channel until `count` pages have come, or until EOF. */
  main(count = Infinity): void {
    const { reader } = this.#channel;
    while (this.pages.length < count) {
      const section = readSectionHeader(reader);
      this.sections.push(section.kind);
      if (section.kind === "eof") return;
      if (section.kind !== "part" && section.kind !== "end") {
        throw new Error(`a ${section.kind} section came`);
      }
      this.body();
      readFooter(reader, section.sectionId);
    }
  }

  /** Takes what has come on an urgent channel, without waiting; false once it has ended. */
  urgent(): boolean {
    for (;;) {
      const got = this.#channel.tryRead();
      if (got === 0) return true;
      if (got < 0 || this.#loader.load() === "end of section") return false;
    }
  }
}
