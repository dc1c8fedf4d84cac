import { describe, expect, test } from "bun:test";
import { eventsSchema } from "../../../src/report/events.ts";
import type { NewEvent } from "../../../src/report/events.ts";
import { Histogram } from "../../../src/report/histogram.ts";
import { destReportSchema, latencySchema, reportSchema } from "../../../src/report/report.ts";
import { createEventWriter } from "../../../src/report/sink.ts";
import { destReport, sourceReport } from "./fixtures/reports.ts";

describe("reports", () => {
  test("of both roles pass through JSON unchanged", () => {
    for (const report of [sourceReport, destReport]) {
      expect(reportSchema.parse(JSON.parse(JSON.stringify(report)))).toEqual(report);
    }
  });

  test("are strict: a field too many, a unit mixed up, another version", () => {
    for (const wrong of [
      { ...destReport, extra: 1 },
      { ...destReport, version: 2 },
      { ...destReport, role: "source" },
      { ...destReport, audit: { pagesChecked: 1.5, pagesWrong: 0 } },
      { ...destReport, downtime: { ms: -1, method: "one-clock" } },
    ]) {
      expect(destReportSchema.safeParse(wrong).success).toBeFalse();
    }
  });

  test("take a histogram's summary as it is, also an empty one", () => {
    const histogram = new Histogram();
    expect(latencySchema.safeParse(histogram.summary()).success).toBeTrue();
    histogram.record(1234.5);
    expect(latencySchema.safeParse(histogram.summary()).success).toBeTrue();
  });
});

describe("events", () => {
  test("are one JSON object a line, name and time first", () => {
    let text = "";
    const sink = createEventWriter({ write: (more) => (text += more) });
    sink.emit({ event: "phase", phase: "pre\ncopy" });
    sink.emit({ event: "report", report: sourceReport });
    const lines = text.trimEnd().split("\n");
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      expect(line).toMatch(/^\{"event":"(phase|report)","time":"\d{4}-/);
      expect(eventsSchema.safeParse(JSON.parse(line)).error).toBeUndefined();
    }
  });

  test("of progress are left out while the reader is behind, others are not", () => {
    const written: string[] = [];
    const stream = { writableLength: 2 ** 21, write: (text: string) => written.push(text) };
    const sink = createEventWriter(stream);
    const progress: NewEvent = {
      event: "progress",
      role: "source",
      phase: "precopy",
      round: 1,
      elapsedMs: 0,
      bytes: 0,
      donePages: 0,
      arrivedPages: 0,
      remainingPages: null,
      dirtyPages: null,
      faults: 0,
      bytesPerSecond: 0,
      pagesPerSecond: 0,
      percent: null,
      etaMs: null,
    };
    sink.emit(progress);
    expect(written).toEqual([]);
    sink.emit({ event: "drained", sinceStartMs: 1 });
    expect(written).toHaveLength(1);
    stream.writableLength = 0;
    sink.emit(progress);
    expect(eventsSchema.safeParse(JSON.parse(written[1] ?? "")).error).toBeUndefined();
  });
});
