/** All figures of a report in words; what did not happen is left out. */
import type { LatencySummary } from "../histogram.ts";
import type { QemuFigures } from "../qemu-figures.ts";
import type { DestReport, Report, SourceReport } from "../report.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import { facts, table } from "./tables.ts";
import { formatValue } from "./units.ts";
import type { PlotUnit } from "./units.ts";

/** A line: what, how much, and in which unit; null is left out. */
type Line = readonly [string, number | string | boolean | null, PlotUnit?];

function group(caption: string, lines: readonly Line[]): Markup | undefined {
  const rows = lines.flatMap(([what, value, unit = "count"]): [string, Content][] => {
    if (value === null) return [];
    if (typeof value === "boolean") return [[what, value ? "yes" : "no"]];
    return [[what, typeof value === "string" ? value : formatValue(value, unit)]];
  });
  return rows.length === 0 ? undefined : html`<div class="card">${facts(caption, rows)}</div>`;
}

/** Tables of everything that a report says. */
export function figures(report: Report): Markup {
  return html`<div class="cards">
    ${general(report)}${times(report)}${report.role === "source" ? sent(report) : received(report)}${
      report.qemu === null ? undefined : qemu(report.qemu)
    }
  </div>`;
}

function general(report: Report): Markup | undefined {
  const { error, memory } = report;
  return group("In general", [
    ["Guest", report.guest],
    ["Peer", report.peer],
    ["Outcome", report.outcome],
    ["Error", error === null ? null : `${error.code}: ${error.message}`],
    ["Last phase", report.phase],
    ["Started at", report.startedAt],
    ["Program", `postcopy ${report.program}`],
    ["Memory of the guest", memory.guestBytes === 0 ? null : memory.guestBytes, "bytes"],
    ["Most memory of this process", memory.peakRssBytes, "bytes"],
    ["Requests on their own channel", report.urgentChannel],
    ["Connections of the push", report.pushChannels],
    ["Priority of the threads that serve faults", report.favour],
  ]);
}

function times({ times: { setup, ...rest }, rates, downtime }: Report): Markup | undefined {
  return group("Time", [
    ["Downtime", downtime === null ? null : downtime.ms, "ms"],
    ["From the start to the first page", setup, "ms"],
    ["Precopy", rest.precopy, "ms"],
    ["Device state", rest.device, "ms"],
    ["Postcopy", rest.postcopy, "ms"],
    ["Until the destination ran", rest.toRunning, "ms"],
    ["Until no page was missing", rest.toDrained, "ms"],
    ["In all", rest.total, "ms"],
    ["Rate of precopy", rates.precopy, "bytes/s"],
    ["Rate of postcopy", rates.postcopy, "bytes/s"],
  ]);
}

function sent(report: SourceReport): Content {
  const { switchover, pages, requests, bytes, workingSet } = report;
  return [
    group("Switchover", [
      ["Why then", switchover === null ? null : switchover.reason],
      ["Pages left to move", switchover === null ? null : switchover.dirtyPages],
      ["They moved in", switchover === null ? null : switchover.kind],
      ["Times the link was made anew", report.recoveries],
      ["Recorded working set, pages", workingSet === null ? null : workingSet.pages],
      ["It was in place after", workingSet === null ? null : workingSet.toInPlaceMs, "ms"],
    ]),
    group("Pages", [
      ["All pages of the guest", pages.total],
      ["Precopy, with content", pages.precopyNormal],
      ["Precopy, zeros", pages.precopyZero],
      ["Owed at the switchover", pages.owed],
      ["Pushed, with content", pages.pushedNormal],
      ["Pushed, zeros", pages.pushedZero],
      ["Pushed compressed", pages.pushedCompressed],
      ["Requested, with content", pages.requestedNormal],
      ["Requested, zeros", pages.requestedZero],
      ["Sent again, as they were under way", pages.repeated],
    ]),
    group("Requests", [
      ["Received", requests.received],
      ["Answered with a page", requests.served],
      ["Of pages that had been sent", requests.duplicate],
      ["Share of the owed pages", percentOf(requests.remoteShare), "%"],
    ]),
    group("Bytes", [
      ["Precopy", bytes.precopy, "bytes"],
      ["Package with the device state", bytes.package, "bytes"],
      ["Push", bytes.postcopy, "bytes"],
      ["Answers to requests", bytes.requested, "bytes"],
      ["In all", bytes.total, "bytes"],
    ]),
    latencyLines("Time to answer a request", report.requestServiceNs),
  ];
}

function received(report: DestReport): Content {
  // A QEMU that receives counts nothing of that.
  if (report.qemu !== null) return undefined;
  const { pages, places, faults, bytes, multifd, audit, snapshot } = report;
  return [
    group("Pages", [
      ["All pages of the guest", pages.total],
      ["Completed in", report.completedIn],
      ["Precopy, with content", pages.precopyNormal],
      ["Precopy, zeros", pages.precopyZero],
      ["Missing when the guest started", pages.missing],
      ["Pushed, with content", pages.pushedNormal],
      ["Pushed, zeros", pages.pushedZero],
      ["On the urgent channel, with content", pages.urgentNormal],
      ["On the urgent channel, zeros", pages.urgentZero],
      ["Discarded by the guest meanwhile", pages.removed],
      ["Dropped, as it had discarded them", pages.dropped],
      ["Were there already (EEXIST)", places.exists],
      ["Placed again (EAGAIN)", places.retries],
    ]),
    group("Faults", [
      ["Events read", faults.events],
      ["Remote: a page was asked for", faults.remote],
      ["Local: it had come meanwhile", faults.local],
      ["Share of the missing pages", percentOf(faults.remoteShare), "%"],
    ]),
    latencyLines("Wait of a remote fault", faults.latencyNs),
    group("Bytes", [
      ["Main channel", bytes.main, "bytes"],
      ["Multifd channels", bytes.multifd, "bytes"],
      ["Urgent channel", bytes.urgent, "bytes"],
      ["In all", bytes.total, "bytes"],
      ["Number of multifd channels", multifd === null ? null : multifd.channels],
      ["Their compression", multifd === null ? null : multifd.compression],
    ]),
    group("What became of it", [
      ["Pages checked", audit === null ? null : audit.pagesChecked],
      ["Pages that were wrong", audit === null ? null : audit.pagesWrong],
      ["Kept in", snapshot === null ? null : snapshot.directory],
      ["Bytes on disk", snapshot === null ? null : snapshot.bytes, "bytes"],
      ["Pages stored", snapshot === null ? null : snapshot.pagesStored],
      ["Device state", snapshot === null ? null : snapshot.deviceBytes, "bytes"],
    ]),
  ];
}

function percentOf(share: number | null): number | null {
  return share === null ? null : 100 * share;
}

function latencyLines(caption: string, latency: LatencySummary | null): Markup | undefined {
  if (latency === null) return undefined;
  return group(caption, [
    ["Number", latency.count],
    ["Mean", latency.mean, "ns"],
    ["Least", latency.min, "ns"],
    ["Half took at most", latency.p50, "ns"],
    ["90 % took at most", latency.p90, "ns"],
    ["99 % took at most", latency.p99, "ns"],
    ["Most", latency.max, "ns"],
  ]);
}

function qemu(said: QemuFigures): Markup | undefined {
  return group("QEMU's own figures", [
    ["Version", said.version],
    ["Status", said.status],
    ["Started in", said.startMs, "ms"],
    ["total-time", said.totalMs, "ms"],
    ["downtime, till the package was sent", said.downtimeMs, "ms"],
    ["All vCPUs blocked (postcopy-blocktime)", said.blocktimeMs, "ms"],
    ["Guest stood still (--keep)", said.stoodStillMs, "ms"],
    ["Requests answered (postcopy-requests)", said.requests],
    ["Mean remote fault (postcopy-latency)", said.latencyMeanNs, "ns"],
  ]);
}

/** The precopy rounds; nothing where there were none. */
export function roundsTable({ rounds }: SourceReport): Markup | undefined {
  if (rounds.length === 0) return undefined;
  const rows = rounds.map((round) => [
    String(round.round),
    formatValue(round.pagesNormal, "count"),
    formatValue(round.pagesZero, "count"),
    formatValue(round.bytes, "bytes"),
    formatValue(round.durationMs, "ms"),
    formatValue(round.dirtyPagesAfter, "count"),
  ]);
  const head = ["round", "pages", "zeros", "sent", "took", "dirty after"];
  return table({ caption: "One line a round, as it was sent", id: "rounds", head, rows });
}
