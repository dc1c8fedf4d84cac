import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { seedGenerator } from "../../../src/guests/stress/generator.ts";
import {
  nextOperation,
  OPERATION_DISCARD,
  OPERATION_READ,
  OPERATION_WRITE,
  pageOfRank,
  planWorker,
  type Operation,
} from "../../../src/guests/stress/operation.ts";
import { smallParameters } from "./stress-guest.ts";

const OPERATIONS = 100_000;

/** Does many operations and counts them by kind and page. */
function count(changes: Parameters<typeof smallParameters>[0]) {
  const parameters = smallParameters({ workers: 1, ...changes });
  const plan = planWorker(parameters, 0);
  const state = new Int32Array(4);
  seedGenerator(state, 0, parameters.seed, 0);
  const operation: Operation = { kind: OPERATION_READ, page: 0 };
  const kinds = [0, 0, 0];
  const pages = new Map<number, number>();
  for (let done = 0; done < OPERATIONS; done++) {
    nextOperation(plan, state, 0, operation);
    kinds[operation.kind]! += 1;
    pages.set(operation.page, (pages.get(operation.page) ?? 0) + 1);
  }
  return { plan, kinds: kinds as [number, number, number], pages };
}

test("the workers own every page once, in any guest", () => {
  fc.assert(
    fc.property(fc.integer({ min: 64, max: 3000 }), fc.integer({ min: 1, max: 64 }), (pages, n) => {
      const parameters = smallParameters({ size: pages * 4096, workers: n });
      const owned: number[] = [];
      for (let worker = 0; worker < n; worker++) {
        const plan = planWorker(parameters, worker);
        for (let rank = 0; rank < plan.pages; rank++) {
          const page = pageOfRank(plan, rank);
          expect(page % n).toBe(worker);
          owned.push(page);
        }
      }
      expect(owned.sort((a, b) => a - b)).toEqual(Array.from({ length: pages }, (_, i) => i));
    }),
    { numRuns: 30 },
  );
});

describe("the operations", () => {
  test("have the hot share, the zero fraction and the discard rate that was asked for", () => {
    const { plan, kinds, pages } = count({ hotFraction: 0.1, hotShare: 0.9, discardRate: 0.01 });
    let hot = 0;
    for (let rank = 0; rank < plan.hotPages; rank++) hot += pages.get(pageOfRank(plan, rank)) ?? 0;
    // Nine tenths, and a tenth of the rest.
    expect(hot / OPERATIONS).toBeCloseTo(0.91, 2);
    expect(kinds[OPERATION_READ] / OPERATIONS).toBeCloseTo(0.1 * 0.25, 2);
    expect(kinds[OPERATION_DISCARD] / OPERATIONS).toBeWithin(0.008, 0.012);
    expect(kinds[OPERATION_WRITE]).toBe(OPERATIONS - kinds[0] - kinds[2]);
    expect(pages.size).toBeGreaterThan(plan.pages - 5);
  });

  test("are reads only where nothing is ever written", () => {
    expect(count({ zeroFraction: 1, hotFraction: 0 }).kinds).toEqual([OPERATIONS, 0, 0]);
    expect(count({ zeroFraction: 0, discardRate: 0 }).kinds).toEqual([0, OPERATIONS, 0]);
    expect(count({ zeroFraction: 0, discardRate: 1 }).kinds).toEqual([0, 0, OPERATIONS]);
  });
});
