/**
 * A guest of two blocks of which a part comes in precopy and the rest behind the switch, so that a
 * page which is taken for another state of itself is found out. Pages of the second block are written
 * as those that lie apart:
 *
 *     const kept = new KeptGuest(directory, LATE_SETUP);
 *     sendEarly(kept);
 *     sendLate(kept, kept.missing);
 *     expectWhole(directory);
 */
import { expect } from "bun:test";
import { openSnapshot } from "../../src/guests/snapshot/open.ts";
import { SnapshotTable } from "../../src/guests/snapshot/page-table.ts";
import { StoredPages } from "../../src/guests/stored/pages.ts";
import { filledPage } from "./kept-guest.ts";
import type { KeptGuest } from "./kept-guest.ts";

const PAGE = 4096;
const PAGES = 8;
const BLOCKS = ["one", "two"];

export const LATE_SETUP = BLOCKS.map((name) => ({ name, length: PAGES * PAGE, pageSize: PAGE }));

/** Whether a page comes behind the switch. */
function isLate(_index: number, page: number): boolean {
  return page % 2 === 1;
}

/** What a page holds all over before the switch, and after it; 0 is a page of zeros. */
function earlyByte(index: number, page: number): number {
  return page % 4 === 3 ? 0 : 1 + index * PAGES + page;
}

function finalByte(index: number, page: number): number {
  if (!isLate(index, page)) return earlyByte(index, page);
  return page % 8 === 5 ? 0 : 101 + index * PAGES + page;
}

/** Precopy, and the switch. */
export function sendEarly(kept: KeptGuest): void {
  for (const { index } of kept.blocks) {
    for (let page = 0; page < PAGES; page++) send(kept, kept.precopy, index, page, earlyByte);
  }
  kept.takeOver(isLate);
}

/** A guest that completes in precopy. */
export function sendAll(kept: KeptGuest): void {
  for (const { index } of kept.blocks) {
    for (let page = 0; page < PAGES; page++) send(kept, kept.precopy, index, page, finalByte);
  }
  kept.finish();
}

/** Pages behind the switch. */
export function sendLate(kept: KeptGuest, which: readonly { index: number; page: number }[]): void {
  for (const { index, page } of which) send(kept, kept.postcopy, index, page, finalByte);
}

function send(
  kept: KeptGuest,
  sink: KeptGuest["postcopy"],
  index: number,
  page: number,
  byteOf: (index: number, page: number) => number,
): void {
  const byte = byteOf(index, page);
  if (byte === 0) sink.zeros(kept.block(index), page * PAGE, 1);
  else if (index === 0) kept.store(sink, index, page, filledPage(byte));
  else kept.storeScattered(sink, index, page, [filledPage(byte)]);
}

/** The directory holds a snapshot, and every page of it is right. */
export function expectWhole(directory: string): void {
  const snapshot = openSnapshot(directory);
  const pages = new StoredPages(new SnapshotTable(snapshot));
  const target = new Uint8Array(PAGE);
  const wrong = snapshot.blocks.flatMap((block) => {
    return Array.from({ length: PAGES }, (_, page) => page).filter((page) => {
      pages.copyPage(block, page * PAGE, target, 0);
      return Buffer.compare(target, filledPage(finalByte(block.index, page))) !== 0;
    });
  });
  expect(wrong).toEqual([]);
}
