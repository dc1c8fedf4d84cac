/**
 * What is left of a guest that was taken over in part: arrival.json is mutated beside files that are
 * right. Whatever is taken for a page that has arrived is one that did, and no file gets shorter.
 */
import { closeSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { ArrivedPart } from "../../../src/dest/guest.ts";
import { readArrival } from "../../../src/guests/snapshot/arrival-file.ts";
import { SnapshotDestGuest } from "../../../src/guests/snapshot/dest-guest.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { textLayout } from "../layouts.ts";
import type { Material } from "../mutate.ts";
import { PageBitmap } from "../../../src/ram/bitmap.ts";
import { targetPages } from "../../../src/ram/block.ts";
import { Finding } from "../target.ts";
import type { Place, Target, Verdict } from "../target.ts";
import { errors } from "./files.ts";
import { inDirectory } from "./kept.ts";

const FILE = "arrival.json";
const PAGE = 4096;
/** Of several sizes, so that one in the place of another is a block that is too short or too long. */
const PAGES = [8, 4, 1];
const SETUP = PAGES.map((pages, index) => {
  return { name: `block${index}`, length: pages * PAGE, pageSize: PAGE };
});
/** What is resumed here at most: larger guests are looked through page by page as well. */
const RESUMED_BYTES_MAX = 64 * 2 ** 20;

let left: ReadonlyMap<string, Uint8Array> | undefined;

function isLate(_index: number, page: number): boolean {
  return page % 2 === 1;
}

/** The files of a guest of which every second page is still to come. */
function leftFiles(): ReadonlyMap<string, Uint8Array> {
  left ??= inDirectory((directory) => {
    const kept = new KeptGuest(directory, SETUP);
    for (const [index, pages] of PAGES.entries()) {
      for (let page = 0; page < pages; page++) {
        kept.store(kept.precopy, index, page, filledPage(1 + index * 16 + page));
      }
    }
    kept.takeOver(isLate);
    const { files, sumFiles } = kept.guest.sinkData();
    for (const fd of [...files, ...sumFiles]) closeSync(fd);
    return new Map(
      readdirSync(directory).map((name) => [
        name,
        new Uint8Array(readFileSync(join(directory, name))),
      ]),
    );
  });
  return left;
}

function arrivalOf({ name }: Material): Material {
  const bytes = leftFiles().get(FILE) ?? new Uint8Array(0);
  return { name: `${name} ${FILE}`, bytes, layout: textLayout(bytes) };
}

function resume(bytes: Uint8Array, place: Place): Verdict {
  const directory = join(place.directory, "kept");
  for (const [name, content] of leftFiles()) writeFileSync(join(directory, name), content);
  writeFileSync(join(directory, FILE), bytes);
  const verdict = errors(() => resumeIn(directory));
  for (const [name, content] of leftFiles()) {
    if (name === FILE || statSync(join(directory, name)).size >= content.length) continue;
    throw new Finding(`${name} was cut off`);
  }
  return verdict;
}

function resumeIn(directory: string): Verdict {
  const takenOver = readArrival(directory);
  const total = takenOver.arrival.blocks.reduce((sum, { length }) => sum + length, 0);
  if (total > RESUMED_BYTES_MAX) return "accepted";
  const guest = new SnapshotDestGuest(directory, () => undefined, takenOver);
  const part = guest.resume();
  const { files, sumFiles } = guest.sinkData();
  for (const fd of [...files, ...sumFiles]) closeSync(fd);
  compareArrived(part);
  return "accepted";
}

function compareArrived({ blocks, pages: { received } }: ArrivedPart): void {
  for (const [index, block] of blocks.entries()) {
    const pages = new PageBitmap(targetPages(block), received[index]);
    for (let page = 0; page < pages.pages; page++) {
      if (!pages.test(page) || (page < (PAGES[index] ?? 0) && !isLate(index, page))) continue;
      throw new Finding(`page ${page} of block ${index} is taken for one that has arrived`);
    }
  }
}

export const ARRIVAL_TARGETS: readonly Target[] = [
  {
    ...{ name: "arrival.json", share: 2, prepare: arrivalOf, run: resume },
    takes: (name) => name === "stream.7.2.precopy",
  },
];
