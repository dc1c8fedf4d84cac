/**
 * Out of the places of the last requests, in both directions, nearest pages first: a guest works in
 * several places at once, and near each is what it touches next. What is far from all of them comes
 * by addresses.
 */
import { lowestBit } from "../ram/bitmap.ts";
import type { RamBlock } from "../ram/block.ts";
import { blockOfPage, hostPageOf, totalPages } from "../ram/block.ts";
import { AddressOrder, firstBlock } from "./push-order.ts";
import type { PushOrder } from "./push-order.ts";
import { WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** Places that are remembered. */
const PIVOTS = 8;
/** Host pages that are pushed at a place before another has its turn: runs, as these cost least. */
const PIECE = 32;
/** Host pages on each side of a place that are pushed because of it. */
const REACH = 2048;
/** A request so few host pages behind what was pushed goes on with it. */
const GAP = 64;
/** Of so many pieces of a place one lies below it: more of what is asked for lies above. */
const PIECES_A_ROUND = 4;

/** Of [down, up) everything has been pushed, but for gaps that requests left. */
interface Pivot {
  block: RamBlock;
  up: number;
  upEnd: number;
  down: number;
  downEnd: number;
  pieces: number;
}

export class SpreadingOrder implements PushOrder {
  block: RamBlock;
  hostPage = 0;
  readonly #blocks: readonly RamBlock[];
  readonly #shared: SourceShared;
  readonly #pages: number;
  /** The last one first. */
  readonly #pivots: Pivot[] = [];
  /** The end of the piece that is being pushed. */
  #end = 0;
  #turn = 0;
  readonly #rest: AddressOrder;

  /** Where nothing was requested it begins behind a share of all memory, as AddressOrder does. */
  constructor(blocks: readonly RamBlock[], shared: SourceShared, start = 0) {
    this.#blocks = blocks;
    this.#shared = shared;
    this.#pages = totalPages(blocks);
    this.#rest = new AddressOrder(blocks, shared, start);
    this.block = firstBlock(blocks);
  }

  /** Notes where the last request was: behind its page the push goes on at once. */
  followRequests(): void {
    const hint = Atomics.exchange(this.#shared.control, WORD.pushHint, -1);
    // Behind the last page of all there is none.
    if (hint < 0 || hint >= this.#pages) return;
    const block = blockOfPage(this.#blocks, hint);
    this.#note(block, hostPageOf(this.#blocks, block, hint));
    this.#end = 0;
    this.#turn = 0;
  }

  #note(block: RamBlock, hostPage: number): void {
    const near = this.#pivots.findIndex(({ block: { index }, down, up }) => {
      return index === block.index && hostPage >= down && hostPage <= up + GAP;
    });
    const [known] = near < 0 ? [] : this.#pivots.splice(near, 1);
    const pivot = known ?? { block, up: 0, upEnd: 0, down: hostPage, downEnd: 0, pieces: 0 };
    const pages = this.#shared.owed[block.index]?.pages ?? 0;
    pivot.up = known === undefined ? hostPage : Math.max(known.up, hostPage);
    pivot.upEnd = Math.min(pages, pivot.up + REACH);
    pivot.downEnd = Math.max(0, pivot.down - REACH);
    this.#pivots.unshift(pivot);
    if (this.#pivots.length > PIVOTS) this.#pivots.pop();
  }

  find(): boolean {
    if (this.#findIn(this.block, this.hostPage, this.#end)) return true;
    while (this.#pivots.length > 0) {
      // Every second piece is one of the last request, every fourth of the one before, and so on.
      const at = Math.min(lowestBit(++this.#turn), this.#pivots.length - 1);
      const pivot = this.#pivots[at];
      if (pivot === undefined) break;
      if (this.#findAt(pivot)) return true;
      if (pivot.up >= pivot.upEnd && pivot.down <= pivot.downEnd) this.#pivots.splice(at, 1);
    }
    if (!this.#rest.find()) return false;
    this.block = this.#rest.block;
    this.hostPage = this.#rest.hostPage;
    // By addresses runs may be as long as they like: a request ends them.
    this.#end = Infinity;
    return true;
  }

  /** Stands on the first page of the next piece of a place that has something owed. */
  #findAt(pivot: Pivot): boolean {
    const { block, up, upEnd, downEnd } = pivot;
    if (++pivot.pieces % PIECES_A_ROUND !== 0 && up < upEnd) {
      const found = this.#shared.owed[block.index]?.nextSet(up, upEnd) ?? -1;
      pivot.up = found < 0 ? upEnd : Math.min(upEnd, found + PIECE);
      return found >= 0 && this.#findIn(block, found, pivot.up);
    }
    if (pivot.down <= downEnd) return false;
    const end = pivot.down;
    pivot.down = Math.max(downEnd, end - PIECE);
    return this.#findIn(block, pivot.down, end);
  }

  #findIn(block: RamBlock, from: number, end: number): boolean {
    const owed = this.#shared.owed[block.index];
    const last = Math.min(end, owed?.pages ?? 0);
    if (owed === undefined || from >= last) return false;
    const found = owed.nextSet(from, last);
    if (found < 0) return false;
    this.block = block;
    this.hostPage = found;
    this.#end = last;
    return true;
  }

  run(most: number): number {
    return Math.min(most, this.#end - this.hostPage);
  }

  next(count: number): void {
    this.hostPage += count;
  }
}
