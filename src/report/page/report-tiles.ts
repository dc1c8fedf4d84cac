/** The few figures of a report that are read first. */
import type { Report } from "../report.ts";
import type { Tile } from "./tables.ts";
import { formatValue } from "./units.ts";
import type { PlotUnit } from "./units.ts";

function tile(label: string, value: number | null, unit: PlotUnit, note?: string): Tile[] {
  if (value === null) return [];
  const figure = { label, value: formatValue(value, unit) };
  return [note === undefined ? figure : { ...figure, note }];
}

/** What did not happen is left out. */
export function tilesOf(report: Report): Tile[] {
  const { downtime, times, rates, bytes, qemu } = report;
  const kept = report.role === "dest" && report.snapshot !== null;
  const moved = rates.postcopy ?? rates.precopy;
  return [
    ...tile(
      "downtime",
      downtime === null ? null : downtime.ms,
      "ms",
      downtime === null ? undefined : DOWNTIME[downtime.method],
    ),
    ...tile("guest ran after", kept ? null : times.toRunning, "ms", "from the start"),
    ...tile("all memory there after", times.toDrained, "ms", "from the start"),
    ...faultTiles(report),
    ...tile(
      "QEMU's faults, mean",
      qemu === null ? null : qemu.latencyMeanNs,
      "ns",
      "postcopy-latency",
    ),
    ...tile(
      "on the wire",
      bytes.total === 0 ? null : bytes.total,
      "bytes",
      moved === null ? undefined : `at ${formatValue(moved, "bytes/s")}`,
    ),
  ];
}

const DOWNTIME = {
  "one-clock": "both ends on one clock",
  "two-clocks": "by two machines' clocks",
  acknowledged: "until the answer, so at most",
  guest: "the longest gap the guest saw",
} as const;

function faultTiles(report: Report): Tile[] {
  if (report.role === "source") {
    const { requests, requestServiceNs: answers } = report;
    if (requests.received === 0) return [];
    return [
      ...tile("page requests", requests.received, "count", shareText(requests.remoteShare, "owed")),
      ...tile(
        "answered in",
        answers === null ? null : answers.p50,
        "ns",
        answers === null ? undefined : `half of them; 99 % in ${formatValue(answers.p99, "ns")}`,
      ),
    ];
  }
  const { faults, pages, snapshot } = report;
  if (pages.missing === 0 || snapshot !== null) return [];
  const { latencyNs: waits } = faults;
  return [
    ...tile("remote faults", faults.remote, "count", shareText(faults.remoteShare, "missing")),
    ...tile(
      "a fault waited",
      waits === null ? null : waits.p50,
      "ns",
      waits === null ? undefined : `half of them; 99 % up to ${formatValue(waits.p99, "ns")}`,
    ),
  ];
}

function shareText(share: number | null, what: string): string | undefined {
  return share === null ? undefined : `${formatValue(100 * share, "%")} of the pages ${what}`;
}
