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
      requested    590 pages (4.9 %) on their own channel (612 requests, 22 of them already sent)
      answered in  p50 24.1 µs  p90 51 µs  p99 190 µs  max 1.23 ms
      priority     real time
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
      faults       612 remote (5.1 % of what lacked), 28 on pages just come
      waited       p50 105 µs  p90 222 µs  p99 1.14 ms  max 4.02 ms
                      32 µs ███████ 88
                      64 µs ████████████████████████ 301
                     128 µs ███████████████▏ 190
                     256 µs ██ 25
                     512 µs
                    1.02 ms ▌ 7
                    2.05 ms ▏ 1
      priority     real time
      checked      262,144 pages, 0 wrong
      traffic      978 MiB: precopy at 760 MiB/s, postcopy at 519 MiB/s
      time         running after 1.24 s, drained after 1.33 s, 3.35 s in all
      memory       1.09 GiB at most, for a guest of 1 GiB"
  `);
});

const qemu = {
  ...{ version: "11.1.3", status: "completed", startMs: 232.4, totalMs: 900, downtimeMs: 5 },
  ...{ blocktimeMs: 183, stoodStillMs: null, requests: 17, latencyMeanNs: 148_200 },
  latencyBuckets: [0, 0, 0, 10, 0, 6, 0, 1, ...Array.from({ length: 16 }, () => 0)],
};

test("a guest that was restored in a QEMU started for it: our times beside QEMU's", () => {
  const report = {
    ...sourceReport,
    ...{ guest: "snapshot of pc-i440fx-11.1 in /vm1", peer: "the QEMU of --run", rounds: [], qemu },
    switchover: { reason: "the guest stands still", dirtyPages: 32_900, kind: "postcopy" as const },
    ...{ downtime: null, workingSet: { pages: 812, toInPlaceMs: 1302 } },
    rates: { precopy: null, postcopy: 543_706_740 },
  };
  expect(renderReport(report, plain)).toMatchInlineSnapshot(`
    "Restored snapshot of pc-i440fx-11.1 in /vm1 in the QEMU of --run
      switchover   the guest stands still; 129 MiB left to move by postcopy
      pushed       11,400 pages and 11 zero
      requested    590 pages (4.9 %) on their own channel (612 requests, 22 of them already sent)
      answered in  p50 24.1 µs  p90 51 µs  p99 190 µs  max 1.23 ms
      priority     real time
      QEMU         11.1.3, started in 232 ms, all vCPUs blocked for 183 ms
      waited       148 µs in the mean, in 17 faults as QEMU saw them
                       8 µs ████████████████████████ 10
                      16 µs
                      32 µs ██████████████▍ 6
                      64 µs
                     128 µs ██▍ 1
      traffic      978 MiB: postcopy at 519 MiB/s
      time         running after 1.24 s, working set there after 1.30 s, drained after 1.33 s, 1.35 s in all
      memory       1.09 GiB at most, for a guest of 1 GiB"
  `);
});

test("a QEMU that was driven does not tell which pages it was asked for, nor what it received", () => {
  const driven = { ...qemu, startMs: null, latencyBuckets: null, latencyMeanNs: null };
  const sent = renderReport({ ...sourceReport, qemu: driven }, plain);
  expect(sent).toContain("postcopy     11,400 pages and 11 zero (612 requests)\n");
  expect(sent).not.toContain("requested ");
  const bytes = { main: 0, multifd: 0, urgent: 0, total: 0 };
  const memory = { guestBytes: 0, peakRssBytes: 2 ** 26 };
  const received = renderReport({ ...destReport, qemu: driven, bytes, memory }, plain);
  expect(received).not.toContain("traffic");
  expect(received).toEndWith("memory       64 MiB at most");
});

test("a guest that was kept", () => {
  const snapshot = { directory: "vm1", bytes: 2 ** 28, pagesStored: 65_536, deviceBytes: 31_000 };
  const kept = { ...destReport, guest: "pc-i440fx-7.2", snapshot, audit: null };
  const text = renderReport(kept, plain);
  expect(text).toStartWith("Kept pc-i440fx-7.2 from tcp:127.0.0.1:38712\n");
  expect(text).toContain("snapshot     vm1: 256 MiB in 65,536 pages");
  expect(text).not.toContain("checked");
  // It runs nowhere.
  expect(text).toContain("time         drained after 1.33 s");
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
      faults: { events: 0, remote: 0, local: 0, remoteShare: null, latencyNs: null },
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
