import { afterEach, describe, expect, jest, test } from "bun:test";
import fc from "fast-check";
import type { NewEvent } from "../../../src/report/events.ts";
import {
  estimate,
  progressBar,
  renderLine,
  renderPlain,
  startProgress,
} from "../../../src/report/progress.ts";
import type {
  ProgressFigures,
  ProgressMode,
  ProgressSample,
} from "../../../src/report/progress.ts";
import { noEvents } from "../../../src/report/sink.ts";
import { createPaint, Terminal } from "../../../src/util/terminal.ts";

const PAGE = 4096;
const plain = createPaint(false);
const colours = createPaint(true);

const sample: ProgressSample = {
  role: "source",
  phase: "precopy",
  round: 2,
  elapsedMs: 1000,
  bytes: 512 * 2 ** 20,
  donePages: 150_000,
  arrivedPages: 0,
  remainingPages: 50_000,
  dirtyPages: 12_345,
  faults: 0,
};

describe("estimate", () => {
  test("rates, share and time left of the first sample", () => {
    const figures = estimate(sample, undefined);
    expect(figures.bytesPerSecond).toBe(512 * 2 ** 20);
    expect(figures.pagesPerSecond).toBe(150_000);
    expect(figures.percent).toBe(75);
    expect(figures.etaMs).toBeCloseTo(333.3, 0);
  });

  test("a steady rate stays what it is, a new one is approached", () => {
    let figures = estimate(sample, undefined);
    const next = (bytes: number): ProgressSample => ({
      ...sample,
      elapsedMs: figures.elapsedMs + 100,
      bytes: figures.bytes + bytes,
    });
    figures = estimate(next(51.2 * 2 ** 20), figures);
    expect(figures.bytesPerSecond).toBeCloseTo(512 * 2 ** 20, -2);
    const before = figures.bytesPerSecond;
    figures = estimate(next(0), figures);
    expect(figures.bytesPerSecond).toBeLessThan(before);
    expect(figures.bytesPerSecond).toBeGreaterThan(before * 0.8);
  });

  test("two samples of one instant keep the rate", () => {
    const figures = estimate(sample, undefined);
    expect(estimate(sample, figures).bytesPerSecond).toBe(figures.bytesPerSecond);
  });

  test("the share never falls, stays below 100 until the end, and then is 100", () => {
    const pages = fc.nat(300_000);
    const looks = fc.array(fc.record({ donePages: pages, remainingPages: fc.option(pages) }), {
      minLength: 1,
    });
    fc.assert(
      fc.property(looks, (all) => {
        let figures: ProgressFigures | undefined;
        for (const look of all) {
          const least: number = figures?.percent ?? 0;
          figures = estimate({ ...sample, ...look }, figures);
          expect(figures.percent ?? 0).toBeGreaterThanOrEqual(least);
          expect(figures.percent ?? 0).toBeLessThan(100);
        }
        expect(estimate({ ...sample, phase: "completed" }, figures).percent).toBe(100);
      }),
    );
  });

  test("without a link nothing moves, and how fast it did says nothing of what comes", () => {
    const before = estimate({ ...sample, phase: "postcopy" }, undefined);
    const paused = estimate({ ...sample, phase: "paused", elapsedMs: 1100 }, before);
    expect(paused).toMatchObject({ bytesPerSecond: 0, pagesPerSecond: 0, etaMs: null });
    expect(paused.percent).toBe(75);
    const later = { ...sample, phase: "postcopy", elapsedMs: 61_100 };
    const again = estimate({ ...sample, phase: "recover", elapsedMs: 61_000 }, paused);
    const { bytes, donePages } = sample;
    const next = estimate({ ...later, bytes: bytes + 1000, donePages: donePages + 10 }, again);
    expect(next.bytesPerSecond).toBeCloseTo(10_000);
    expect(next.pagesPerSecond).toBeCloseTo(100);
  });

  test("what was there before this process began counts for the share, and for no rate", () => {
    const resumed = { ...sample, donePages: 0, arrivedPages: 150_000 };
    expect(estimate(resumed, undefined)).toMatchObject({ percent: 75, pagesPerSecond: 0 });
  });

  test("nothing is guessed where nothing is known", () => {
    const unknown = estimate({ ...sample, remainingPages: null }, undefined);
    expect([unknown.percent, unknown.etaMs]).toEqual([null, null]);
    const idle = estimate({ ...sample, donePages: 0, bytes: 0 }, undefined);
    expect(idle.etaMs).toBeNull();
  });
});

describe("the line", () => {
  const figures = estimate(sample, undefined);

  test("has everything on a wide terminal", () => {
    expect(renderLine(figures, 120, plain)).toBe(
      "precopy round 2 █████████    75 %  512 MiB at 512 MiB/s  195 MiB left (~1 s)" +
        "  requests 0  dirty 12,345 pages",
    );
  });

  test("leaves whole parts out on a narrow one, and is cut on the narrowest", () => {
    const start = "precopy round 2 █████████    75 %";
    expect(renderLine(figures, 59, plain)).toBe(`${start}  512 MiB at 512 MiB/s`);
    expect(renderLine(figures, 40, plain)).toBe(start);
    expect(renderLine(figures, 10, plain)).toBe("precopy ro");
  });

  test("has neither rate nor time while there is no link", () => {
    const paused = estimate({ ...sample, phase: "paused", round: null, dirtyPages: null }, figures);
    expect(renderPlain(paused)).toBe("paused: 75 %, 512 MiB, 195 MiB left, requests 0");
  });

  test("as a log line has no bar", () => {
    expect(renderPlain(figures)).toBe(
      "precopy round 2: 75 %, 512 MiB at 512 MiB/s, 195 MiB left (~1 s), requests 0, " +
        "dirty 12,345 pages",
    );
  });

  test("of a destination in precopy says only what is known", () => {
    const dest = { ...sample, role: "dest", round: null, remainingPages: null } as const;
    const line = renderLine(estimate({ ...dest, dirtyPages: null }, undefined), 120, plain);
    expect(line).toBe("precopy  512 MiB at 512 MiB/s  faults 0");
  });

  test("fits any terminal, with and without colours", () => {
    const anySample = fc.record({
      bytes: fc.maxSafeNat(),
      donePages: fc.nat(),
      remainingPages: fc.option(fc.nat()),
      dirtyPages: fc.option(fc.nat()),
      faults: fc.nat(),
    });
    fc.assert(
      fc.property(anySample, fc.nat(200), fc.boolean(), (look, columns, coloured) => {
        const any = estimate({ ...sample, ...look }, undefined);
        const line = renderLine(any, columns, coloured ? colours : plain);
        expect(Bun.stringWidth(line)).toBeLessThanOrEqual(columns);
        expect(line).not.toContain("\n");
      }),
    );
  });
});

test("a bar is as wide as asked and as long as its share", () => {
  expect(progressBar(0, 4)).toBe("    ");
  expect(progressBar(50, 4)).toBe("██  ");
  expect(progressBar(100, 4)).toBe("████");
  expect(progressBar(100 / 32, 4)).toBe("▏   ");
});

describe("the display", () => {
  afterEach(() => {
    jest.useRealTimers();
  });

  /** Lets a display run for a second of false time; returns what it wrote, and its last. */
  function runSecond(mode: ProgressMode) {
    jest.useFakeTimers();
    const writes: string[] = [];
    const events: NewEvent[] = [];
    const stream = { isTTY: true, columns: 60, write: (text: string) => writes.push(text) };
    const terminal = new Terminal(stream, { NO_COLOR: "1" });
    let donePages = 0;
    const progress = startProgress({
      mode,
      sample: () => ({ ...sample, donePages: (donePages += PAGE) }),
      terminal,
      events: { emit: (event) => events.push(event) },
    });
    jest.advanceTimersByTime(1000);
    const running = { writes: writes.length, events: events.length };
    progress.stop();
    progress.stop();
    const stopped = { writes: writes.length, events: events.length };
    jest.advanceTimersByTime(5000);
    expect({ writes: writes.length, events: events.length }).toEqual(stopped);
    return { running, writes, events };
  }

  test("redraws its line at least four times a second, and takes it away at the end", () => {
    const { running, writes, events } = runSecond("line");
    expect(running.writes).toBeGreaterThanOrEqual(5);
    expect(writes[0]).toStartWith("\rprecopy round 2");
    expect(writes[0]).not.toContain("\n");
    expect(writes.at(-1)).toBe("\r\u001b[K");
    expect(events).toEqual([]);
  });

  test("writes a plain line a second, and the last state", () => {
    const { running, writes } = runSecond("plain");
    expect(running.writes).toBe(1);
    expect(writes).toHaveLength(2);
    expect(writes.every((line) => line.endsWith("\n"))).toBeTrue();
  });

  test("emits events and writes nothing", () => {
    const { running, writes, events } = runSecond("events");
    expect(running.events).toBe(2);
    expect(events).toHaveLength(3);
    expect(events[0]).toMatchObject({ event: "progress", phase: "precopy", donePages: PAGE });
    expect(writes).toEqual([]);
  });

  test("says nothing when it should be quiet", () => {
    const { writes, events } = runSecond("none");
    expect([...writes, ...events]).toEqual([]);
    expect(noEvents.emit({ event: "phase", phase: "x" })).toBeUndefined();
  });
});
