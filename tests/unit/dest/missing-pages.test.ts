import { expect, test } from "bun:test";
import fc from "fast-check";
import { settleMissing } from "../../../src/dest/missing-pages.ts";
import { attachPageState, createPageState } from "../../../src/dest/shared.ts";
import { PageBitmap } from "../../../src/ram/bitmap.ts";

const PAGE = 4096;

/** For each page: whether it has arrived (and was not discarded since), and was ever discarded. */
const pageArbitrary = fc.record({ received: fc.boolean(), discarded: fc.boolean() });
const blockArbitrary = fc.array(pageArbitrary, { minLength: 1, maxLength: 150 });

test("what was discarded is missing, what was never sent is zeros, and the rest stays", () => {
  fc.assert(
    fc.property(fc.array(blockArbitrary, { maxLength: 3 }), (model) => {
      const blocks = model.map((pages, index) => {
        return {
          index,
          name: `b${index}`,
          length: pages.length * PAGE,
          pageSize: PAGE,
          address: 0,
        };
      });
      const state = attachPageState(createPageState(blocks), blocks);
      const discarded = model.map((pages) => new PageBitmap(pages.length));
      for (const [block, pages] of model.entries()) {
        for (const [page, was] of pages.entries()) {
          if (was.received) state.received[block]?.set(page);
          if (was.discarded) discarded[block]?.set(page);
        }
      }
      const owed = model.flat().filter((was) => was.discarded && !was.received).length;
      expect(settleMissing(state, discarded)).toBe(owed);
      for (const [block, pages] of model.entries()) {
        for (const [page, { received, discarded: gone }] of pages.entries()) {
          const unsent = !received && !gone;
          expect(state.received[block]?.test(page)).toBe(received || unsent);
          expect(state.unpopulated[block]?.test(page)).toBe(unsent);
        }
      }
    }),
    { numRuns: 300 },
  );
});
