/** A host page that is larger than target pages, gathered from those as they come, one behind the other. */
import { mapScratch } from "../../syscalls/memory.ts";
import type { Scratch } from "../../syscalls/memory.ts";
import type { RamBlock } from "../ram/block.ts";
import { StreamError } from "../util/errors.ts";

export class GatheredPage {
  /** Blocks may have pages of several sizes: there is room for the largest so far. */
  #room: Scratch | undefined;
  #block: RamBlock | undefined;
  /** Where the page begins in its block. */
  #start = 0;
  /** Bytes of it that are here. */
  #bytes = 0;

  /**
   * Adds `length` bytes of whole target pages of one host page, zeros without data. Returns the address of
   * the whole once its last part is here, which holds until the next call.
   * @throws StreamError for a part that is not the one that follows.
   */
  add(
    block: RamBlock,
    offset: number,
    length: number,
    data: Uint8Array | undefined,
  ): number | undefined {
    const room = this.#roomFor(block.pageSize);
    const within = offset % block.pageSize;
    if (this.#bytes === 0) {
      this.#block = block;
      this.#start = offset - within;
    }
    if (block !== this.#block || offset - within !== this.#start || within !== this.#bytes) {
      throw new StreamError(
        "BAD_ORDER",
        `The page at ${offset} of ${block.name} came inside of another host page`,
      );
    }
    if (data === undefined) room.bytes.fill(0, within, within + length);
    else room.bytes.set(data, within);
    this.#bytes += length;
    if (this.#bytes < block.pageSize) return undefined;
    this.#bytes = 0;
    return room.address;
  }

  /** Forgets the part that is here: the rest of it will not come. */
  drop(): void {
    this.#bytes = 0;
  }

  #roomFor(pageSize: number): Scratch {
    if (this.#room === undefined || this.#room.bytes.length < pageSize) {
      this.#room = mapScratch(pageSize);
    }
    return this.#room;
  }
}

/** Where the host page that holds `offset` ends in its block. */
export function hostPageEnd({ pageSize }: RamBlock, offset: number): number {
  return (Math.floor(offset / pageSize) + 1) * pageSize;
}
