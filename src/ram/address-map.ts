/**
 * Where the pages of a guest lie in an address space: in this process for a guest that runs here, in
 * that of a VMM which has handed its memory over. It is a list of pieces, each of them a part of a
 * RAM block and mapped as a whole, in the order of blocks and offsets. What no piece covers lies
 * nowhere.
 *
 * The list is shared between threads. One of them changes it (a VMM moves or unmaps memory), and
 * only while it holds the lock under which the others read it: here nothing is atomic.
 */
import { PostcopyError } from "../util/errors.ts";
import type { RamBlock } from "./block.ts";
import { attachBytes } from "./shared-bytes.ts";
import type { SharedBytes } from "./shared-bytes.ts";

/** A part of a RAM block that is mapped as a whole. Bytes. */
export interface AddressPiece {
  address: number;
  length: number;
  /** The index of its block, and where in that it begins. */
  block: number;
  offset: number;
}

/** Takes the part [offset, offset + length) of the block of an index. */
export type TakePart = (block: number, offset: number, length: number) => void;

/** Pieces that may be added to a list: each change in the middle of a piece makes two more. */
const SPARE_PIECES = 1024;

/**
 * Numbers of a piece, and before the first: how many there are, doubled, and which half has them. The
 * memory is two lists, one in force and one to be written.
 */
const NUMBERS = 4;
const HEAD = 1;
const ADDRESS = 0;
const LENGTH = 1;
const BLOCK = 2;
const OFFSET = 3;

export class AddressMap {
  /** Shared with other threads by message; each makes an AddressMap of its own over it. */
  readonly shared: SharedBytes;
  readonly #numbers: Float64Array;
  /** Numbers of each half. */
  readonly #room: number;
  /** The piece that was found last by its address: faults come near each other. */
  #last = 0;

  /** A view of a list made elsewhere. */
  constructor(shared: SharedBytes) {
    this.shared = shared;
    this.#numbers = new Float64Array(attachBytes(shared));
    this.#room = Math.floor((this.#numbers.length - HEAD) / 2);
  }

  /** Bytes of a list that begins with `count` pieces. */
  static bytes(count: number): number {
    return (HEAD + 2 * (count + SPARE_PIECES) * NUMBERS) * 8;
  }

  /** The list of some pieces, of which no two overlap; in memory of `bytes` if not of its own. */
  static of(pieces: readonly AddressPiece[], shared?: SharedBytes): AddressMap {
    const map = new AddressMap(shared ?? new SharedArrayBuffer(AddressMap.bytes(pieces.length)));
    map.#write(pieces);
    return map;
  }

  /** The list of blocks each of which is mapped as a whole; of a guest that lies in files: none. */
  static ofBlocks(blocks: readonly RamBlock[]): AddressMap {
    const mapped = blocks.filter(({ address }) => address !== 0);
    return AddressMap.of(
      mapped.map(({ index: block, address, length }) => ({ address, length, block, offset: 0 })),
    );
  }

  /** How many pieces there are; they are numbered from 0, in the order of blocks and offsets. */
  get count(): number {
    return Math.floor((this.#numbers[0] ?? 0) / 2);
  }

  /** Which of the two halves is the list: the other one is for the next. */
  get #half(): number {
    return (this.#numbers[0] ?? 0) % 2;
  }

  /** Where a piece begins in the address space. */
  address(piece: number): number {
    return this.#number(piece, ADDRESS);
  }

  /** Its bytes. */
  length(piece: number): number {
    return this.#number(piece, LENGTH);
  }

  /** The index of its block. */
  block(piece: number): number {
    return this.#number(piece, BLOCK);
  }

  /** Where it begins in its block. */
  offset(piece: number): number {
    return this.#number(piece, OFFSET);
  }

  #number(piece: number, which: number): number {
    return this.#numbers[HEAD + this.#half * this.#room + piece * NUMBERS + which] ?? 0;
  }

  /** The piece that `address` is in (qemu_ram_block_from_host), or -1. */
  pieceAt(address: number): number {
    const { count } = this;
    if (this.#last < count && this.#holds(this.#last, address)) return this.#last;
    for (let piece = 0; piece < count; piece++) {
      if (!this.#holds(piece, address)) continue;
      this.#last = piece;
      return piece;
    }
    return -1;
  }

  #holds(piece: number, address: number): boolean {
    const within = address - this.address(piece);
    return within >= 0 && within < this.length(piece);
  }

  /** The piece that holds the byte at `offset` of a block; where none does, -1. */
  pieceOf(block: number, offset: number): number {
    const piece = this.#firstBehind(block, offset) - 1;
    if (piece < 0 || this.block(piece) !== block) return -1;
    return offset < this.offset(piece) + this.length(piece) ? piece : -1;
  }

  /** The number of the first piece that begins behind a place. */
  #firstBehind(block: number, offset: number): number {
    let [from, to] = [0, this.count];
    while (from < to) {
      const middle = (from + to) >>> 1;
      const at = this.block(middle);
      if (at < block || (at === block && this.offset(middle) <= offset)) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /** The address of the byte at `offset` of a block, which a piece must hold. */
  addressOf(block: number, offset: number): number {
    const piece = this.pieceOf(block, offset);
    if (piece < 0) throw new Error(`the byte at ${offset} of block ${block} lies nowhere`);
    return this.address(piece) + offset - this.offset(piece);
  }

  /** Hands each part of a block that [start, end) of the address space holds to `take`, in order. */
  forEachPart(start: number, end: number, take: TakePart): void {
    const { count } = this;
    for (let piece = 0; piece < count; piece++) {
      const address = this.address(piece);
      const from = Math.max(start, address);
      const to = Math.min(end, address + this.length(piece));
      if (from < to) take(this.block(piece), this.offset(piece) + from - address, to - from);
    }
  }

  /** All pieces. */
  pieces(): AddressPiece[] {
    return Array.from({ length: this.count }, (_, piece) => ({
      address: this.address(piece),
      length: this.length(piece),
      block: this.block(piece),
      offset: this.offset(piece),
    }));
  }

  /** Throws what `damaged` makes unless every piece is a part of one of these blocks. */
  check(blocks: readonly RamBlock[], damaged: (what: string) => Error): void {
    const { count } = this;
    if (count * NUMBERS > this.#room) throw damaged(`${count} pieces of memory are too many`);
    for (const { address, length, block, offset } of this.pieces()) {
      const within = blocks[block];
      const numbers = [address, length, offset];
      const isWhole = numbers.every((number) => Number.isSafeInteger(number) && number >= 0);
      if (isWhole && within !== undefined && offset + length <= within.length) continue;
      throw damaged(`a piece of memory is in no RAM block`);
    }
  }

  /** [start, end) of the address space holds nothing of the guest any more. */
  unmap(start: number, end: number): void {
    this.#write(this.pieces().flatMap((piece) => outsideOf(piece, start, end)));
  }

  /** What [from, from + length) held lies at `to` from now on, instead of what was there. */
  move(from: number, to: number, length: number): void {
    const moved = this.pieces().flatMap((piece) => insideOf(piece, from, from + length));
    const rest = this.pieces().flatMap((piece) => outsideOf(piece, from, from + length));
    this.#write([
      ...rest.flatMap((piece) => outsideOf(piece, to, to + length)),
      ...moved.map((piece) => ({ ...piece, address: piece.address - from + to })),
    ]);
  }

  /**
   * Writes the next list, and then makes it the one by a single store: whoever takes a killed
   * process's place finds the old one or the new one.
   * @throws PostcopyError FRAGMENTED where there is no room for so many.
   */
  #write(pieces: readonly AddressPiece[]): void {
    if (pieces.length * NUMBERS > this.#room) {
      const what = `The VMM has cut the memory of its guest into ${pieces.length} pieces`;
      throw new PostcopyError("FRAGMENTED", `${what}, which are too many`);
    }
    const half = 1 - this.#half;
    const ordered = pieces.toSorted((a, b) => a.block - b.block || a.offset - b.offset);
    for (const [index, { address, length, block, offset }] of ordered.entries()) {
      const at = HEAD + half * this.#room + index * NUMBERS;
      this.#numbers.set([address, length, block, offset], at);
    }
    this.#numbers[0] = 2 * pieces.length + half;
  }
}

/** The part of a piece that lies in [start, end) of the address space, if any does. */
function insideOf(piece: AddressPiece, start: number, end: number): AddressPiece[] {
  const { address, length, block, offset } = piece;
  const from = Math.max(start, address);
  const to = Math.min(end, address + length);
  if (from >= to) return [];
  return [{ address: from, length: to - from, block, offset: offset + from - address }];
}

/** The parts of a piece that do not: one on each side at most. */
function outsideOf(piece: AddressPiece, start: number, end: number): AddressPiece[] {
  return [...insideOf(piece, 0, start), ...insideOf(piece, end, Infinity)];
}
