import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { compareWorker, repeatWorker } from "../../../src/guests/stress/model.ts";
import { isZeroVersion } from "../../../src/guests/stress/version.ts";
import { smallParameters, StressGuest } from "./stress-guest.ts";

test("a life in one go is a life in two parts", () => {
  const parameters = smallParameters();
  fc.assert(
    fc.property(fc.nat(3000), fc.nat(3000), (first, second) => {
      const whole = repeatWorker(parameters, 1, first + second);
      expect(repeatWorker(parameters, 1, first + second)).toEqual(whole);
      const part = repeatWorker(parameters, 1, first);
      const grown = whole.versions.reduce((sum, word) => sum + (word & 0x7fff_ffff), 0);
      const before = part.versions.reduce((sum, word) => sum + (word & 0x7fff_ffff), 0);
      // Every operation is a write or a discard of one page, or a read that changes nothing.
      expect(grown - before).toBeWithin(0, second + 1);
    }),
    { numRuns: 30 },
  );
});

test("never touches the zero pages, and leaves a discarded page zero", () => {
  const { versions } = repeatWorker(smallParameters({ discardRate: 0.5 }), 0, 50_000);
  expect(versions.filter((word) => word === 0)).toHaveLength(128);
  expect(versions.filter(isZeroVersion).length).toBeWithin(250, 390);
});

describe("a guest that went another way is found", () => {
  async function guestOf(spoil: (guest: StressGuest) => void) {
    await using guest = await StressGuest.create(smallParameters());
    await guest.run(300);
    expect(guest.model()).toEqual({ pagesChecked: 1024, pagesWrong: 0, workersAstray: 0 });
    spoil(guest);
    return guest.model();
  }

  test("one version off", async () => {
    const verdict = await guestOf(({ world }) => {
      world.versions[10] = world.versions[10]! + 1;
    });
    expect(verdict.pagesWrong).toBe(1);
    expect(verdict.first?.page).toBe(10);
    expect(verdict.first?.found).toBe(verdict.first!.expected + 1);
  });

  test("one operation lost or done twice", async () => {
    await using guest = await StressGuest.create(smallParameters());
    await guest.run(300);
    const { parameters, versions } = guest.world;
    for (const change of [-1, 1]) {
      const progress = guest.control.progress()[0]!;
      const operations = progress.operations + change;
      const verdict = compareWorker(parameters, 0, { ...progress, operations }, versions);
      expect(verdict.workersAstray).toBe(1);
    }
  });
});
