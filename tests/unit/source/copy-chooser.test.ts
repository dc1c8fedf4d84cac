import { describe, expect, test } from "bun:test";
import { threadCpuNs } from "../../../syscalls/process.ts";
import type { PageReader } from "../../../src/ram/page-reader.ts";
import { CopyChooser } from "../../../src/source/copy-chooser.ts";
import { RamWriter } from "../../../src/source/ram-writer.ts";

const CHUNK_PAGES = 64;

/** Pages that nobody reads here; `addressOf` says that they could be gathered. */
const stored: PageReader = { isZero: () => true, copyPage: () => undefined };
const mapped: PageReader = { ...stored, addressOf: () => 0 };

/** Spends CPU time of this thread, whatever else runs on the machine. */
function burn(ns: number): void {
  const end = threadCpuNs() + ns;
  while (threadCpuNs() < end);
}

/** Lets a chooser choose for some chunks whose two ways cost so much; how often it copied. */
function run(chooser: CopyChooser, chunks: number, copyNs: number, gatherNs: number): number {
  const writer = new RamWriter(mapped);
  let copied = 0;
  for (let n = 0; n < chunks; n++) {
    chooser.before(writer);
    burn(writer.copying ? copyNs : gatherNs);
    if (writer.copying) copied++;
    chooser.after(writer, CHUNK_PAGES);
  }
  return copied;
}

describe("gathering and copying", () => {
  test("are both tried, and the cheaper one is kept", () => {
    for (const [copyNs, gatherNs, copies] of [
      [20_000, 120_000, true],
      [120_000, 20_000, false],
    ] as const) {
      const chooser = new CopyChooser();
      const tried = run(chooser, 32, copyNs, gatherNs);
      expect([tried, 32 - tried]).toEqual([16, 16]);
      const copied = run(chooser, 128, copyNs, gatherNs);
      expect(copies ? copied : 128 - copied).toBeGreaterThanOrEqual(120);
      // Now and then the other one has its chance.
      expect(copies ? copied : 128 - copied).toBeLessThan(128);
    }
  });

  test("change places when the host changes its mind", () => {
    const chooser = new CopyChooser();
    run(chooser, 200, 20_000, 100_000);
    run(chooser, 800, 100_000, 20_000);
    expect(run(chooser, 128, 100_000, 20_000)).toBeLessThan(8);
  });

  test("are no question where pages can only be copied", () => {
    const chooser = new CopyChooser();
    const writer = new RamWriter(stored);
    for (let n = 0; n < 100; n++) {
      chooser.before(writer);
      expect(writer.copying).toBe(true);
      chooser.after(writer, CHUNK_PAGES);
    }
  });

  test("are not judged by chunks without data", () => {
    const chooser = new CopyChooser();
    const writer = new RamWriter(mapped);
    const ways = Array.from({ length: 100 }, () => {
      chooser.before(writer);
      chooser.after(writer, 0);
      return writer.copying;
    });
    // Nothing was learnt, so it is still the first way's turn.
    expect(new Set(ways).size).toBe(1);
  });
});
