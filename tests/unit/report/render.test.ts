import { expect, test } from "bun:test";
import { stripVTControlCharacters } from "node:util";
import { renderReport } from "../../../src/report/render.ts";
import { createPaint } from "../../../src/util/terminal.ts";
import { destReport, sourceReport } from "./fixtures/reports.ts";

const plain = createPaint(false);

test("the source's report", () => {
  expect(renderReport(sourceReport, plain)).toMatchInlineSnapshot(`
    "Moved stress:size=1GiB to tcp:127.0.0.1:4444

      round    pages    zero     sent    took  dirty after
          1  196,608  65,536  770 MiB  1.01 s       41,233
          2   41,233       0  161 MiB  213 ms       12,001

      switchover   the set of dirty pages stopped shrinking; 46.9 MiB left to move by postcopy
      downtime     12.3 ms (until the destination's answer, so at most)
      pushed       11,400 pages and 11 zero
      requested    590 pages on their own channel (612 requests, 22 of them already sent)
      answered in  p50 24.1 µs  p90 51 µs  p99 190 µs  max 1.23 ms
      traffic      978 MiB: precopy at 760 MiB/s, postcopy at 519 MiB/s
      time         running after 1.24 s, drained after 1.33 s, 1.35 s in all
      memory       1.09 GiB at most, for a guest of 1 GiB"
  `);
});

test("the destination's report", () => {
  expect(renderReport(destReport, plain)).toMatchInlineSnapshot(`
    "Received stress from tcp:127.0.0.1:38712
      downtime     9.87 ms (both ends on one clock)
      precopy      237,841 pages and 65,536 zero
      pushed       11,400 pages and 11 zero
      urgent       590 pages on their own channel
      faults       612 remote, 28 on pages just come
      waited       p50 105 µs  p90 222 µs  p99 1.14 ms  max 4.02 ms
                      32 µs ███████ 88
                      64 µs ████████████████████████ 301
                     128 µs ███████████████▏ 190
                     256 µs ██ 25
                     512 µs
                    1.02 ms ▌ 7
                    2.05 ms ▏ 1
      checked      262,144 pages, 0 wrong
      traffic      978 MiB: precopy at 760 MiB/s, postcopy at 519 MiB/s
      time         running after 1.24 s, drained after 1.33 s, 3.35 s in all
      memory       1.09 GiB at most, for a guest of 1 GiB"
  `);
});

test("a guest that was kept", () => {
  const snapshot = { directory: "vm1", bytes: 2 ** 28, pagesStored: 65_536, deviceBytes: 31_000 };
  const kept = { ...destReport, guest: "pc-i440fx-7.2", snapshot, audit: null };
  const text = renderReport(kept, plain);
  expect(text).toStartWith("Kept pc-i440fx-7.2 from tcp:127.0.0.1:38712\n");
  expect(text).toContain("snapshot     vm1: 256 MiB in 65,536 pages");
  expect(text).not.toContain("checked");
});

test("a migration that failed early says no more than there is", () => {
  const nothing = { total: 0, precopyNormal: 0, precopyZero: 0, missing: 0, pushedNormal: 0 };
  const more = { pushedZero: 0, urgentNormal: 0, urgentZero: 0, removed: 0, dropped: 0 };
  const failed = renderReport(
    {
      ...destReport,
      outcome: "failed",
      phase: "precopy",
      error: { code: "PEER_GONE", message: "The peer closed the connection" },
      pages: { ...nothing, ...more },
      faults: { events: 0, remote: 0, local: 0, latencyNs: null },
      bytes: { main: 12, multifd: 0, urgent: 0, total: 12 },
      downtime: null,
      rates: { precopy: null, postcopy: null },
      times: { ...destReport.times, toRunning: null, toDrained: null },
      audit: null,
    },
    plain,
  );
  expect(failed).toMatchInlineSnapshot(`
    "Migration failed in phase precopy
      traffic      12 B
      time         3.35 s in all
      memory       1.09 GiB at most, for a guest of 1 GiB"
  `);
});

test("a single slow fault among many is still seen", () => {
  const { latencyNs } = destReport.faults;
  if (latencyNs === null) throw new Error("the fixture has no latencies");
  const buckets = latencyNs.buckets.map((_, index) =>
    index === 5 ? 100_000 : index === 9 ? 1 : 0,
  );
  const faults = { ...destReport.faults, latencyNs: { ...latencyNs, buckets } };
  expect(renderReport({ ...destReport, faults }, plain)).toContain("512 µs ▏ 1\n");
});

test("wrong pages stand out", () => {
  const wrong = { ...destReport, audit: { pagesChecked: 10, pagesWrong: 2 } };
  expect(renderReport(wrong, plain)).toContain("checked      10 pages, 2 wrong");
  expect(renderReport(wrong, createPaint(true))).toContain("\u001b[31m\u001b[1m2 wrong");
});

test("colours change nothing but colours, and no line is wider than a terminal", () => {
  for (const report of [sourceReport, destReport]) {
    const text = renderReport(report, plain);
    expect(stripVTControlCharacters(renderReport(report, createPaint(true)))).toBe(text);
    for (const line of text.split("\n")) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(100);
  }
});
