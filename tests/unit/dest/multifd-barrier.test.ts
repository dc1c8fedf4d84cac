/** How long the incoming thread waits at a flush: as long as bytes come on multifd channels. */
import { expect, spyOn, test } from "bun:test";
import { MultifdBarrier } from "../../../src/dest/multifd-barrier.ts";
import { createDestShared, DestShared } from "../../../src/dest/shared.ts";
import { DEST } from "../../../src/report/counters.ts";

const TIMEOUT_MS = 30;
const WAITS = 10;

/** A barrier whose other side is not there; `meanwhile` is called instead of each wait for it. */
function flushWith(meanwhile: (shared: DestShared, wait: number) => boolean): number {
  const shared = new DestShared(createDestShared());
  let waits = 0;
  using _spy = spyOn(shared.multifdSettled, "wait").mockImplementation(() => {
    Bun.sleepSync(TIMEOUT_MS / 2);
    return meanwhile(shared, ++waits);
  });
  new MultifdBarrier(shared, () => undefined, TIMEOUT_MS).flush();
  return waits;
}

test("bytes that come, however slowly, are waited for", () => {
  const waits = flushWith((shared, wait) => {
    shared.counters.add(DEST.bytesMultifd, 1);
    return wait === WAITS;
  });
  expect(waits).toBe(WAITS);
});

test("where none come it has a limit", () => {
  expect(() => flushWith(() => false)).toThrow(
    "Pages on multifd channels did not come for 0.03 s after the source had sent them",
  );
});
