/** What is said of the pages that a VMM waits for. */
import { expect, test } from "bun:test";
import { createPageState, requestTicks } from "../../../src/dest/shared.ts";
import { describeWaiting } from "../../../src/guests/uffd/waiting.ts";

const PAGE = 4096;
const blocks = [8, 16].map((pages, index) => {
  return { index, name: `block ${index}`, length: pages * PAGE, pageSize: PAGE, address: 0 };
});
const region = { address: 0x7f00_0000, length: 4 * PAGE, offset: 0, pageSize: PAGE };
// The second one is in the second block, and what lies between them is in none.
const regions = [region, { ...region, offset: 8 * PAGE, length: 16 * PAGE }];

test("the page that is waited for the longest, by region and by block, and how many there are", () => {
  const pages = createPageState(blocks);
  const say = (sinceNs = 0): string => describeWaiting({ blocks, pages }, regions, 5e9, sinceNs);
  expect(say()).toBe("no fault waits just now");
  const [first, second] = pages.requestedAt.map((shared) => new Int32Array(shared));
  first?.fill(requestTicks(3e9), 5, 6);
  expect(say()).toBe("faults on 1 page wait, the longest (2 s) at 0x5000 of block 0 at the source");
  second?.fill(requestTicks(2e9), 3, 4);
  second?.fill(requestTicks(4e9), 4, 6);
  expect(say()).toBe(
    "faults on 4 pages wait, the longest (3 s) at offset 0x3000 of region 1 " +
      "(0x3000 of block 1 at the source)",
  );
  // Longer than what 32 bits of ticks can tell: seven minutes.
  expect(say(-430e9)).toStartWith("faults on 4 pages wait, one of them (for 3 s or longer) at ");
  // Noted while the others were looked at.
  first?.fill(requestTicks(5.1e9), 6, 7);
  expect(say()).toStartWith(
    "faults on 5 pages wait, the longest (3 s) at offset 0x3000 of region 1",
  );
  expect(say(-430e9)).toStartWith("faults on 5 pages wait, one of them (for 3 s or longer) at ");
  expect(describeWaiting(undefined, regions, 0, 0)).toStartWith("no source has come");
});
