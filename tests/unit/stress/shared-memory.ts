/** Guest memory for tests: SharedArrayBuffers at invented addresses; discarding fills with zeros. */
import type { MemoryRange } from "../../../src/guests/stress/page-map.ts";
import { blockLayout, type StressParameters } from "../../../src/guests/stress/parameters.ts";
import type { StressMemory } from "../../../src/guests/stress/worker-loop.ts";

export interface SharedBlock {
  address: number;
  buffer: SharedArrayBuffer;
}

/** Blocks start at addresses that do not follow each other, as in a process. */
const BLOCK_DISTANCE = 2 ** 40;

export class SharedMemory implements StressMemory {
  readonly blocks: SharedBlock[];
  /** Makes discard fail, as a kernel may. */
  discardError: string | undefined;

  constructor(blocks: SharedBlock[]) {
    this.blocks = blocks;
  }

  static allocate(parameters: StressParameters): SharedMemory {
    const blocks = blockLayout(parameters).map(({ length }, index) => ({
      address: (index + 1) * BLOCK_DISTANCE,
      buffer: new SharedArrayBuffer(length),
    }));
    return new SharedMemory(blocks);
  }

  get ranges(): MemoryRange[] {
    return this.blocks.map(({ address, buffer }) => ({ address, length: buffer.byteLength }));
  }

  /** What a perfect migration leaves at the destination. */
  copy(): SharedMemory {
    return new SharedMemory(
      this.blocks.map(({ address, buffer }) => ({ address, buffer: buffer.slice(0) })),
    );
  }

  view = (address: number, length: number): SharedArrayBuffer => {
    const block = this.#find(address);
    if (block.address !== address || block.buffer.byteLength !== length) {
      throw new RangeError("a view that is not a whole block");
    }
    return block.buffer;
  };

  discard(address: number, length: number): void {
    if (this.discardError !== undefined) throw new Error(this.discardError);
    const block = this.#find(address);
    new Uint8Array(block.buffer, address - block.address, length).fill(0);
  }

  #find(address: number): SharedBlock {
    const block = this.blocks.find(
      (at) => address >= at.address && address < at.address + at.buffer.byteLength,
    );
    if (block === undefined) throw new RangeError(`no memory at ${address}`);
    return block;
  }
}
