import { expect, test } from "bun:test";
import { countedSink } from "../../../src/dest/counting-sink.ts";
import type { PageSink } from "../../../src/dest/guest.ts";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  WORD,
} from "../../../src/dest/shared.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { createMovedPages, KIND, MOVED_BINS } from "../../../src/report/moved-pages.ts";
import type { Kind } from "../../../src/report/moved-pages.ts";

const PAGE = 4096;
const small: RamBlock = { index: 0, name: "a", length: 64 * PAGE, pageSize: PAGE, address: 0 };
const large: RamBlock = { index: 1, name: "b", length: 64 * PAGE, pageSize: 8 * PAGE, address: 0 };
const blocks = [small, large];

/** A sink that says what came through. */
function listening(said: string[], readPage?: PageSink["readPage"]): PageSink {
  const sink: PageSink = {
    pages: ({ name }, offset, at, count) => said.push(`pages ${name} ${offset} ${at} ${count}`),
    zeros: ({ name }, offset, count) => said.push(`zeros ${name} ${offset} ${count}`),
    dropPart: () => said.push("drop"),
  };
  if (readPage !== undefined) sink.readPage = readPage;
  return sink;
}

function bench() {
  const moved = createMovedPages();
  const shared = new DestShared(createDestShared(moved));
  const pages = attachPageState(createPageState(blocks), blocks);
  const sum = (kind: Kind): number =>
    new Uint32Array(moved)
      .subarray(kind * MOVED_BINS, (kind + 1) * MOVED_BINS)
      .reduce((all, count) => all + count, 0);
  return { shared, pages, sum };
}

test("where nobody counts, the sink is the sink itself", () => {
  const sink = listening([]);
  const shared = new DestShared(createDestShared());
  expect(countedSink(sink, KIND.push, shared, blocks)).toBe(sink);
});

test("all goes through and is counted; what the sink cannot, the counted one cannot", () => {
  const { shared, sum } = bench();
  const said: string[] = [];
  const sink = countedSink(listening(said), KIND.precopy, shared, blocks);
  sink.pages(small, 2 * PAGE, 77, 3);
  sink.zeros(large, 0, 8);
  sink.dropPart?.();
  expect(said).toEqual(["pages a 8192 77 3", "zeros b 0 8", "drop"]);
  expect(sum(KIND.precopy)).toBe(11);
  expect(sink.readPage).toBeUndefined();
  let read = -1;
  const reading = listening(said, (_, offset) => (read = offset));
  countedSink(reading, KIND.precopy, shared, blocks).readPage?.(small, PAGE, new Uint8Array(PAGE));
  expect(read).toBe(PAGE);
});

test("on a channel for both, what was asked for is a request, by host pages", () => {
  const { shared, pages, sum } = bench();
  const sink = countedSink(listening([]), KIND.push, shared, blocks, pages);
  const ask = (block: RamBlock, page: number): void => {
    const requestedAt = pages.requestedAt[block.index];
    if (requestedAt !== undefined) requestedAt[page] = 1;
  };
  ask(small, 5);
  ask(large, 8);
  sink.pages(small, 4 * PAGE, 0, 4);
  // A host page that comes in two parts is asked for as a whole.
  sink.pages(large, 6 * PAGE, 0, 6);
  sink.zeros(large, 12 * PAGE, 4);
  expect(sum(KIND.request)).toBe(1 + 8);
  expect(sum(KIND.push)).toBe(3 + 2);
});

test("beside an urgent channel, the main one only pushes", () => {
  const { shared, pages, sum } = bench();
  Atomics.store(shared.control, WORD.urgentChosen, 1);
  const sink = countedSink(listening([]), KIND.push, shared, blocks, pages);
  const [requestedAt] = pages.requestedAt;
  requestedAt?.fill(1);
  sink.pages(small, 0, 0, 64);
  expect(sum(KIND.request)).toBe(0);
  expect(sum(KIND.push)).toBe(64);
});
