/** A guest that is sent: blocks of real memory with known contents, and the source's shared state. */
import { mapAnonymous, scratchAt } from "../../syscalls/memory.ts";
import type { Mapping } from "../../syscalls/memory.ts";
import { Channel } from "../../src/channel/channel.ts";
import type { RamBlock } from "../../src/ram/block.ts";
import { targetPages } from "../../src/ram/block.ts";
import { GuestMemory } from "../../src/ram/page-reader.ts";
import type { SourceContext, SourceSettings } from "../../src/source/context.ts";
import { RamWriter } from "../../src/source/ram-writer.ts";
import { createSourceShared, SourceShared } from "../../src/source/shared.ts";
import type { SourceSharedData } from "../../src/source/shared.ts";

const PAGE_BYTES = 4096;

export const SETTINGS: SourceSettings = {
  policy: { kind: "auto" },
  maxBandwidth: 0,
  maxPostcopyBandwidth: 0,
  compression: "auto",
  preempt: false,
  pushChannels: 0,
  channelsAsked: 0,
  downtimeLimitMs: 300,
  linkTimeoutMs: 5000,
};

/** What a page holds: one of three in a row is zero, the others have their place in each word. */
export function pageWord(block: number, page: number): number {
  return page % 3 === 2 ? 0 : (block << 24) + page + 1;
}

/** A context over blocks that are mapped in this process, for any thread of it. */
export function sourceContext(
  blocks: RamBlock[],
  shared: SourceShared,
  channel: Channel,
  stopFd: number,
  settings: Partial<SourceSettings> = {},
): SourceContext {
  const pages = new GuestMemory(blocks);
  const peer = "the destination";
  return {
    guest: {
      machineType: "test",
      blocks,
      live: false,
      openPages: () => pages,
      stop: () => undefined,
      resume: () => undefined,
      devicePackage: () => new Uint8Array(),
    },
    identity: "0123456789abcdef0123456789abcdef",
    channel,
    shared,
    settings: { ...SETTINGS, ...settings },
    replay: new Uint32Array(),
    watch: false,
    makeWriter: () => new RamWriter(pages),
    connectFurther: undefined,
    encrypted: false,
    openChannel: (fd) => new Channel({ fd, stopFd, peer, bufferBytes: 0 }),
    startPush: () => undefined,
    noteHandOver: () => undefined,
    giveWay: () => undefined,
    emit: () => undefined,
  };
}

export class SendingGuest implements Disposable {
  readonly blocks: RamBlock[];
  readonly data: SourceSharedData;
  readonly shared: SourceShared;
  readonly #mappings: Mapping[];

  /** Blocks of so many target pages each; the host page size is only said, not real. */
  constructor(pageCounts: readonly number[], pageSize = PAGE_BYTES) {
    this.#mappings = pageCounts.map((count) => mapAnonymous(count * PAGE_BYTES));
    this.blocks = this.#mappings.map(({ address, length }, index) => {
      return { index, name: `block${index}`, address, length, pageSize };
    });
    for (const block of this.blocks) {
      const words = new Uint32Array(scratchAt(block.address, block.length).bytes.buffer);
      for (let page = 0; page < targetPages(block); page++) {
        words.fill(pageWord(block.index, page), page * 1024, (page + 1) * 1024);
      }
    }
    this.data = createSourceShared(this.blocks);
    this.shared = new SourceShared(this.data, this.blocks);
  }

  /** The block of an index; there must be one. */
  block(index: number): RamBlock {
    const block = this.blocks[index];
    if (block === undefined) throw new RangeError(`there is no block ${index}`);
    return block;
  }

  [Symbol.dispose](): void {
    for (const mapping of this.#mappings) mapping[Symbol.dispose]();
  }
}
