/** The page of one migration: what its report says and what was seen meanwhile, for people. */
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import type { Observations } from "../observations.ts";
import type { Report } from "../report.ts";
import { headline } from "../render.ts";
import { arrivalMap } from "./arrival-map.ts";
import { pageDocument } from "./document.ts";
import type { Section } from "./document.ts";
import { figures, roundsTable } from "./figures.ts";
import { emptyPlot } from "./frame.ts";
import { latencyPlots } from "./latency-plots.ts";
import type { Latencies } from "./latency-plots.ts";
import { html } from "./markup.ts";
import type { Content, Markup } from "./markup.ts";
import { residencyPlot, throughputPlot } from "./movement-plots.ts";
import { tilesOf } from "./report-tiles.ts";
import { folded, tiles } from "./tables.ts";
import type { Timeframe } from "./timeframe.ts";
import { formatValue } from "./units.ts";

/** The page as the text of a file. */
export function reportPage(report: Report, observed: Observations): string {
  const title = headline(report);
  const rounds = report.role === "source" ? roundsTable(report) : undefined;
  const sections: Section[] = [
    { id: "faults", title: "Faults", body: faultPlots(report, observed) },
    { id: "time", title: "Over time", body: timePlots(report, observed) },
    ...(rounds === undefined ? [] : [{ id: "precopy", title: "Precopy rounds", body: rounds }]),
    { id: "figures", title: "All figures", body: figures(report) },
    {
      id: "json",
      title: "For programs",
      body: folded("The report as JSON", "report", JSON.stringify(report, null, 2)),
    },
  ];
  return pageDocument({
    title,
    subtitle: subtitleOf(report),
    lead: [errorText(report), tiles(tilesOf(report))],
    sections,
    footer:
      "Pages are of 4 KiB. Guest memory is counted as it is, also where zeros took a few bytes on the wire. " +
      "Rest on a plot to read its values.",
  });
}

/** When it was, and of what if the title does not say it. */
function subtitleOf({ role, outcome, guest, peer, startedAt, program }: Report): string {
  const date = `${dateText(startedAt)} · postcopy ${program}`;
  return outcome === "completed"
    ? date
    : `${guest}, ${role === "source" ? "to" : "from"} ${peer} · ${date}`;
}

/** "2026-11-26 17:36 UTC" of an ISO 8601 time. */
function dateText(time: string): string {
  return `${time.slice(0, 10)} ${time.slice(11, 16)} UTC`;
}

function errorText({ error }: Report): Markup | undefined {
  return error === null ? undefined : html`<p class="bad">${error.code}: ${error.message}</p>`;
}

function faultPlots(report: Report, { latencies }: Observations): Content {
  const plots: Markup[] = [];
  const own = report.role === "source" ? report.requestServiceNs : report.faults.latencyNs;
  if (own !== null) {
    const series: Latencies[] = [
      {
        name: report.role === "source" ? "answers" : "faults",
        colour: "blue",
        buckets: own.buckets,
        detail: latencies,
      },
    ];
    plots.push(report.role === "source" ? answerPlots(series) : waitPlots(series));
  }
  const buckets = report.qemu?.latencyBuckets ?? null;
  if (buckets !== null && buckets.some((count) => count > 0)) plots.push(qemuPlots(buckets));
  return plots.length > 0 ? plots : emptyPlot("Latency of faults", noFaultsText(report));
}

function waitPlots(series: readonly Latencies[]): Markup {
  return latencyPlots({
    title: "Wait of remote faults",
    caption: "From the fault read to the page placed.",
    counted: "faults",
    series,
  });
}

function answerPlots(series: readonly Latencies[]): Markup {
  return latencyPlots({
    title: "Time to answer page requests",
    caption:
      "From a request's last byte read to its page written. The way there and back is not in it.",
    counted: "requests",
    series,
  });
}

function qemuPlots(buckets: readonly number[]): Markup {
  return latencyPlots({
    title: "Remote faults as QEMU saw them",
    caption: "Its postcopy-latency-dist, which knows powers of two only.",
    counted: "faults",
    series: [{ name: "faults", colour: "vermilion", buckets }],
  });
}

/** Why there is no latency to show. */
function noFaultsText(report: Report): string {
  const { role, qemu } = report;
  if (role === "dest" && qemu === null) {
    return report.snapshot === null
      ? "No page was missing when the guest touched it."
      : "The guest is kept and runs nowhere, so it touched no page.";
  }
  if (role === "dest") {
    return "How long a fault takes is counted by QEMU itself, from 10.1 on; this one said nothing.";
  }
  if (report.requests.received === 0) return "The destination asked for no page.";
  return "How long the guest waits for a page is known only at the destination, and is in its report.";
}

function timePlots(report: Report, { movement, zeroNs, moments }: Observations): Content {
  if (movement === undefined || movement.samples.length === 0)
    return noMovement(report, movement === undefined);
  const there = report.role === "source" ? "at the destination" : "here";
  const totalPages = report.pages.total || Math.ceil(report.memory.guestBytes / TARGET_PAGE_SIZE);
  const timeframe: Timeframe = {
    ...{ movement, zeroNs, totalPages },
    moments: moments.map(({ name, atNs }) => ({ name, x: Math.max(0, (atNs - zeroNs) / 1e6) })),
  };
  const [title, what] =
    report.role === "source" ? ["RAM leaving", "left"] : ["RAM arriving", "came"];
  const map =
    movement.bins === 1
      ? emptyPlot(title, "QEMU does not say which pages it sends.")
      : arrivalMap(timeframe, title, what);
  const residency = residencyPlot(
    timeframe,
    "Residency",
    `Share of the guest's RAM that is ${there}.`,
  );
  return html`<p>${momentsText(timeframe)}</p>
    <div class="plots">
      ${throughputPlot(timeframe, "By kind, one on top of the other.")}${residency}
    </div>
    ${map}`;
}

/** What the upright lines of the plots stand for. */
function momentsText({ moments }: Timeframe): string {
  if (moments.length === 0) return "";
  const parts = moments.map(({ name, x }) => `${name} at ${formatValue(x, "ms")}`);
  return `Dotted lines: ${parts.join(", ")}.`;
}

function noMovement({ role, qemu }: Report, unwatched: boolean): Markup {
  const why =
    role === "dest" && qemu !== null
      ? "The pages went from the source to QEMU, and a QEMU that receives does not say how many it has."
      : unwatched
        ? "Nothing was watched of this migration."
        : "No pages moved.";
  return emptyPlot("Throughput, residency and the map of RAM", why);
}
