import { expect, test } from "bun:test";
import {
  DEST_COUNTERS,
  defineCounters,
  SOURCE,
  SOURCE_COUNTERS,
} from "../../../src/report/counters.ts";

const SET = defineCounters(["pages", "bytes"]);

test("counters start at zero, add and are set", () => {
  const counters = SET.create();
  expect(counters.get(SET.slots.pages)).toBe(0);
  counters.add(SET.slots.pages, 2);
  counters.add(SET.slots.pages, 3);
  counters.set(SET.slots.bytes, 7);
  expect([counters.get(SET.slots.pages), counters.get(SET.slots.bytes)]).toEqual([5, 7]);
});

test("whoever attaches sees the same counters", () => {
  const counters = SET.create();
  const attached = SET.attach(counters.shared);
  counters.add(SET.slots.bytes, 2 ** 40);
  expect(attached.get(SET.slots.bytes)).toBe(2 ** 40);
});

test("a worker's additions are seen without a message", async () => {
  const counters = SOURCE_COUNTERS.create();
  const worker = new Worker(new URL("fixtures/counting-worker.ts", import.meta.url).href);
  const done = new Promise((resolve) => worker.addEventListener("message", resolve));
  worker.postMessage(counters.shared);
  await done;
  worker.terminate();
  expect(counters.get(SOURCE.pagesPushed)).toBe(1_000_000);
});

test("counters lie a cache line apart", () => {
  const CACHE_LINE_BYTES = 64;
  for (const { names, slots, create } of [SOURCE_COUNTERS, DEST_COUNTERS]) {
    const lines = Object.values<number>(slots).map((slot) => (slot * 8) / CACHE_LINE_BYTES);
    expect(lines).toEqual(names.map((_, index) => index));
    expect(create().shared.byteLength).toBe(names.length * CACHE_LINE_BYTES);
  }
});

test("mistakes of the programmer are found", () => {
  expect(() => defineCounters(["a", "a"])).toThrow("one name");
  expect(() => SET.attach(SOURCE_COUNTERS.create().shared)).toThrow("not this set's");
});
