/** Where the pages of a guest lie, against a model that knows it page by page. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AddressMap } from "../../../src/ram/address-map.ts";
import type { AddressPiece } from "../../../src/ram/address-map.ts";

const PAGE = 4096;
/** Pages of the address space of these tests, which begins here. */
const SPACE = 48;
const BASE = 2 ** 46;
const BLOCKS = 3;

const address = (page: number): number => BASE + page * PAGE;

/** What lies at each page of the address space: "block:page", or nothing. */
type Model = (string | undefined)[];

/** Some pieces in the address space and in the blocks, none over another. */
const piecesOf = fc
  .array(
    fc.record({
      gap: fc.nat({ max: 4 }),
      length: fc.integer({ min: 1, max: 8 }),
      block: fc.nat({ max: BLOCKS - 1 }),
      skipped: fc.nat({ max: 3 }),
    }),
    { maxLength: 6 },
  )
  .map((plans) => {
    const pieces: AddressPiece[] = [];
    const used = Array.from({ length: BLOCKS }, () => 0);
    let page = 0;
    for (const { gap, length, block, skipped } of plans) {
      page += gap;
      if (page + length > SPACE) break;
      const offset = (used[block] ?? 0) + skipped;
      used[block] = offset + length;
      pieces.push({ address: address(page), length: length * PAGE, block, offset: offset * PAGE });
      page += length;
    }
    return pieces;
  });

type Change =
  | { kind: "unmap"; from: number; length: number }
  | { kind: "move"; from: number; to: number; length: number };

const place = fc.nat({ max: SPACE - 1 });
const length = fc.integer({ min: 1, max: 12 });
const changeOf: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ kind: fc.constant("unmap" as const), from: place, length }),
  fc
    .record({ kind: fc.constant("move" as const), from: place, to: place, length })
    // mremap(2) refuses places that overlap.
    .filter((change) => Math.abs(change.from - change.to) >= change.length),
);

function modelOf(pieces: readonly AddressPiece[]): Model {
  const model: Model = Array.from({ length: SPACE });
  for (const piece of pieces) {
    for (let page = 0; page < piece.length / PAGE; page++) {
      model[(piece.address - BASE) / PAGE + page] = `${piece.block}:${piece.offset / PAGE + page}`;
    }
  }
  return model;
}

function changeModel(model: Model, change: Change): Model {
  const { kind, from } = change;
  const changed = model.map((at, page) =>
    page >= from && page < from + change.length ? undefined : at,
  );
  if (kind === "unmap") return changed;
  for (let page = 0; page < change.length; page++) {
    if (change.to + page < SPACE) changed[change.to + page] = model[from + page];
  }
  return changed;
}

/** A move that ends outside of the space is of no use to the model. */
const fits = (change: Change): boolean =>
  change.kind === "unmap" || change.to + change.length <= SPACE;

function applyTo(map: AddressMap, change: Change): void {
  const from = address(change.from);
  const bytes = change.length * PAGE;
  if (change.kind === "unmap") map.unmap(from, from + bytes);
  else map.move(from, address(change.to), bytes);
}

/** What the map says of every page, by its address. */
function byAddress(map: AddressMap): Model {
  return Array.from({ length: SPACE }, (_, page) => {
    const at = address(page) + 5;
    const piece = map.pieceAt(at);
    if (piece < 0) return undefined;
    const offset = map.offset(piece) + at - map.address(piece);
    return `${map.block(piece)}:${Math.floor(offset / PAGE)}`;
  });
}

/** The same, asked by blocks and offsets. */
function byOffset(map: AddressMap): Model {
  const model: Model = Array.from({ length: SPACE });
  for (let block = 0; block < BLOCKS; block++) {
    for (let page = 0; page < 4 * SPACE; page++) {
      if (map.pieceOf(block, page * PAGE + 7) < 0) continue;
      const at = (map.addressOf(block, page * PAGE) - BASE) / PAGE;
      expect(model[at]).toBeUndefined();
      model[at] = `${block}:${page}`;
    }
  }
  return model;
}

/** The same of the parts of a range. */
function byParts(map: AddressMap, from: number, count: number): string[] {
  const pages: string[] = [];
  map.forEachPart(address(from), address(from + count), (block, offset, bytes) => {
    for (let at = offset; at < offset + bytes; at += PAGE) pages.push(`${block}:${at / PAGE}`);
  });
  return pages.sort();
}

describe("a map of the guest's memory", () => {
  test("says what lies where, whatever is unmapped and moved", () => {
    fc.assert(
      fc.property(
        piecesOf,
        fc.array(changeOf.filter(fits), { maxLength: 8 }),
        (pieces, changes) => {
          const map = AddressMap.of(pieces);
          const other = new AddressMap(map.shared);
          let model = modelOf(pieces);
          expect(byAddress(map)).toEqual(model);
          for (const change of changes) {
            const gone = model.slice(change.from, change.from + change.length);
            const expected = gone.filter((at) => at !== undefined).sort();
            expect(byParts(map, change.from, change.length)).toEqual(expected);
            applyTo(map, change);
            model = changeModel(model, change);
            // Another thread sees it through a map of its own.
            for (const each of [map, other]) {
              expect(byAddress(each)).toEqual(model);
              expect(byOffset(each)).toEqual(model);
            }
          }
        },
      ),
    );
  });

  test("of blocks has one piece for each that is mapped", () => {
    const block = { pageSize: PAGE, length: 8 * PAGE };
    const map = AddressMap.ofBlocks([
      { index: 0, name: "a", address: address(8), ...block },
      { index: 1, name: "kept in a file", address: 0, ...block },
      { index: 2, name: "b", address: address(0), ...block },
    ]);
    expect(map.pieces()).toEqual([
      { address: address(8), length: 8 * PAGE, block: 0, offset: 0 },
      { address: address(0), length: 8 * PAGE, block: 2, offset: 0 },
    ]);
    expect([map.pieceOf(1, 0), map.pieceAt(address(16))]).toEqual([-1, -1]);
    expect(() => map.addressOf(1, 0)).toThrow(/lies nowhere/);
  });

  test("that is cut into too many pieces says so, and stays as it was", () => {
    const map = AddressMap.of([{ address: 0, length: 4096 * PAGE, block: 0, offset: 0 }]);
    const cut = (): void => {
      for (let page = 1; page < 4096; page += 2) map.unmap(page * PAGE, (page + 1) * PAGE);
    };
    expect(cut).toThrow(/too many/);
    expect(map.count).toBe(1025);
    expect(map.pieceAt(0)).toBe(0);
  });
});
