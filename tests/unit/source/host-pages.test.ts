/** The host pages of a stored guest, as a destination says them. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { RamBlock } from "../../../src/ram/block.ts";
import type { SourceContext } from "../../../src/source/context.ts";
import {
  chooseHostPages,
  followHostPages,
  hostPageChoice,
} from "../../../src/source/host-pages.ts";
import { createSourceShared, SourceShared, WORD } from "../../../src/source/shared.ts";
import { FEATURE } from "../../../src/stream/hello.ts";

const PAGE = 4096;
const HUGE = 2 * 1024 * 1024;
const PER_HUGE = HUGE / PAGE;

/** A block that consists of huge pages, and one that does not; each thread has its own. */
function blocksOf(pageSize: number): RamBlock[] {
  return [
    { index: 0, name: "ram", length: 4 * HUGE, pageSize, address: 0 },
    { index: 1, name: "rom", length: 8 * PAGE, pageSize: PAGE, address: 0 },
  ];
}

function contextOf(pageSize: number, live = false) {
  const blocks = blocksOf(pageSize);
  const data = createSourceShared(blocks);
  const shared = new SourceShared(data, blocks);
  const context = { guest: { blocks, live }, shared } as unknown as SourceContext;
  return { context, shared, blocks, data };
}

/** The owed pages of a block, by its own pages. */
function owedOf({ owed }: SourceShared, index: number): number[] {
  const bits = owed[index];
  if (bits === undefined) throw new Error("no bitmap");
  return Array.from({ length: bits.pages }, (_, page) => page).filter((page) => bits.test(page));
}

test("what is owed and awaited is regrouped, for every thread", () => {
  const pages = fc.uniqueArray(fc.nat({ max: 4 * PER_HUGE - 1 }), { maxLength: 20 });
  fc.assert(
    fc.property(pages, fc.subarray([0, 3, 7]), (ram, rom) => {
      const { context, shared, blocks, data } = contextOf(PAGE);
      const other = { shared: new SourceShared(data, blocks), blocks: blocksOf(PAGE) };
      ram.forEach((page) => shared.owed[0]?.set(page));
      rom.forEach((page) => shared.owed[1]?.set(page));
      ram.forEach((page) => shared.awaited[0]?.set(page));
      chooseHostPages(context, FEATURE.largePages);
      followHostPages(other.shared, other.blocks);
      const huge = [...new Set(ram.map((page) => Math.floor(page / PER_HUGE)))].sort(
        (a, b) => a - b,
      );
      for (const each of [shared, other.shared]) {
        expect([owedOf(each, 0), owedOf(each, 1)]).toEqual([huge, rom]);
      }
      expect(other.blocks.map(({ pageSize }) => pageSize)).toEqual([HUGE, PAGE]);
      const { owed, awaited } = WORD;
      expect(Atomics.load(shared.control, owed)).toBe(huge.length + rom.length);
      expect(Atomics.load(shared.control, awaited)).toBe(huge.length);
    }),
  );
});

test("a guest that had huge pages is sent by small ones", () => {
  const { context, shared, blocks } = contextOf(HUGE);
  shared.owed[0]?.set(1);
  chooseHostPages(context, FEATURE.smallPages);
  expect(blocks.map(({ pageSize }) => pageSize)).toEqual([PAGE, PAGE]);
  expect(owedOf(shared, 0)).toEqual(Array.from({ length: PER_HUGE }, (_, page) => PER_HUGE + page));
  expect(Atomics.load(shared.control, WORD.owed)).toBe(PER_HUGE);
});

test("who says nothing of them gets them as they were", () => {
  const { context, blocks } = contextOf(HUGE);
  chooseHostPages(context, FEATURE.pageRuns);
  expect(blocks.map(({ pageSize }) => pageSize)).toEqual([HUGE, PAGE]);
});

test("a guest that runs here has pages of its own", () => {
  const all = FEATURE.running | FEATURE.smallPages | FEATURE.largePages;
  expect(hostPageChoice(contextOf(PAGE, true).context, all)).toBe(FEATURE.running);
  expect(hostPageChoice(contextOf(PAGE).context, all)).toBe(all);
});
