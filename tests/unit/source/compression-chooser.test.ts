import { describe, expect, test } from "bun:test";
import { CompressionChooser } from "../../../src/source/compression-chooser.ts";

const MIB = 1024 * 1024;
/** A chunk takes this long, so that ten are a window. */
const CHUNK_MS = 10;

interface Link {
  /** MiB a second that go through it. */
  rate: number;
  /** MiB a second of pages that compression takes, and what is left of each byte. */
  packing: number;
  ratio: number;
}

/** Sends over a link for some windows; for each, whether it was compressed. */
function send(chooser: CompressionChooser, link: Link, windows: number): boolean[] {
  return Array.from({ length: windows }, () => {
    const { compressing } = chooser;
    const packed = Math.min(link.packing, link.rate / link.ratio);
    const wire = compressing ? packed * link.ratio : link.rate;
    // Who writes as fast as he can compress waits for nobody.
    const waitedMs = compressing && packed === link.packing ? 0 : CHUNK_MS * 0.9;
    const bytes = (wire * MIB * CHUNK_MS) / 1000;
    let pagesBytes = 0;
    for (let isOver = false; !isOver;) {
      isOver = chooser.note({ bytes, ms: CHUNK_MS, waitedMs });
      pagesBytes += compressing ? bytes / link.ratio : 0;
    }
    const before = compressing ? pagesBytes : MIB / 4;
    const ms = (before / (link.packing * MIB)) * 1000;
    chooser.decide({ before, after: before * link.ratio, ms }, !compressing);
    return compressing;
  });
}

const count = (windows: readonly boolean[]): number => windows.filter(Boolean).length;

describe("compression", () => {
  test("is chosen where the link is slower, after two windows, and looked at now and then", () => {
    const chooser = new CompressionChooser("auto");
    const sent = send(chooser, { rate: 100, packing: 500, ratio: 0.5 }, 100);
    expect(sent.slice(0, 3)).toEqual([false, false, true]);
    expect(count(sent)).toBeWithin(85, 95);
  });

  test("is not chosen where the link is faster, or the pages do not shrink", () => {
    for (const link of [
      { rate: 1000, packing: 500, ratio: 0.3 },
      { rate: 100, packing: 500, ratio: 0.9 },
      { rate: 100, packing: 500, ratio: 1 },
    ]) {
      expect(count(send(new CompressionChooser("auto"), link, 100))).toBe(0);
    }
  });

  test("is given up where what comes of it is less than was promised, and tried again later", () => {
    const chooser = new CompressionChooser("auto");
    // The sample is packed quickly; under way this thread gets a fraction of a processor.
    send(chooser, { rate: 100, packing: 500, ratio: 0.5 }, 2);
    const sent = send(chooser, { rate: 100, packing: 50, ratio: 0.5 }, 10);
    // Twice, as the first window says little: buffers are emptied in it.
    expect(sent).toEqual([true, true, ...Array.from({ length: 8 }, () => false)]);
  });

  test("takes as long as it last took, and the link goes on meanwhile", () => {
    const chooser = new CompressionChooser("auto");
    expect(chooser.takenWhile(MIB)).toBe(0);
    send(chooser, { rate: 100, packing: 500, ratio: 0.5 }, 3);
    expect(chooser.takenWhile(MIB)).toBeCloseTo(MIB / 5, 0);
    send(chooser, { rate: 100, packing: 250, ratio: 0.5 }, 1);
    expect(chooser.takenWhile(MIB)).toBeCloseTo(MIB / 2.5, 0);
  });

  test("takes as long as a sample does where nothing was compressed for want of time", () => {
    const chooser = new CompressionChooser("auto");
    send(chooser, { rate: 100, packing: 500, ratio: 0.5 }, 3);
    expect(chooser.compressing).toBe(true);
    while (!chooser.note({ bytes: MIB / 2, ms: CHUNK_MS, waitedMs: CHUNK_MS * 0.9 }));
    chooser.decide({ before: MIB, after: MIB / 2, ms: 1 }, true);
    expect(chooser.compressing).toBe(true);
    expect(chooser.takenWhile(MIB)).toBeCloseTo(MIB / 20, 0);
  });

  test("is left when the link has become faster", () => {
    const chooser = new CompressionChooser("auto");
    send(chooser, { rate: 100, packing: 500, ratio: 0.5 }, 10);
    expect(chooser.compressing).toBe(true);
    const sent = send(chooser, { rate: 2000, packing: 500, ratio: 0.5 }, 40);
    expect(sent.at(-1)).toBe(false);
    expect(count(sent)).toBeLessThan(20);
  });

  test("is not chosen by a thread that waits for nothing", () => {
    const chooser = new CompressionChooser("auto");
    for (let window = 0; window < 20; window++) {
      while (!chooser.note({ bytes: MIB, ms: CHUNK_MS, waitedMs: CHUNK_MS * 0.3 }));
      chooser.decide({ before: MIB, after: MIB / 10, ms: 0.1 }, true);
      expect(chooser.compressing).toBe(false);
    }
  });

  test("is as the operator has asked for it", () => {
    const link = { rate: 100, packing: 500, ratio: 0.5 };
    for (const [asked, compressing] of [
      ["off", false],
      ["zstd", true],
    ] as const) {
      const chooser = new CompressionChooser(asked);
      for (let chunk = 0; chunk < 100; chunk++) {
        expect(chooser.note({ bytes: link.rate, ms: CHUNK_MS, waitedMs: CHUNK_MS })).toBe(false);
        expect(chooser.compressing).toBe(compressing);
      }
    }
  });
});
