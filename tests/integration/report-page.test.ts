/** `--report FILE.html`: a page with plots of what just happened, looked at in a browser. */
import { afterAll, expect } from "bun:test";
import { destReportSchema, sourceReportSchema } from "../../src/report/report.ts";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { Browser } from "../helpers/browser.ts";
import { expectMoved, move, pages } from "../helpers/migration.ts";
import { needChromium, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { seePage } from "../helpers/page-check.ts";
import { destReportOf, runPostcopy, sourceReportOf } from "../helpers/postcopy-run.ts";
import { machineOf, needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import { captureQemu, enablePostcopy, restoreIntoQemu } from "../helpers/qemu-snapshot.ts";
import { startQemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const place = new TemporaryDirectory("page");
let started: Promise<Browser> | undefined;
const theBrowser = (): Promise<Browser> => (started ??= Browser.start());

afterAll(async () => {
  await (await started)?.[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

const OVER_TIME = ["Throughput", "Residency"];
const WAITS = ["Wait of remote faults", "Wait of remote faults, cumulative"];
const ANSWERS = ["Time to answer page requests", "Time to answer page requests, cumulative"];

/** Looks at the page of a report, which has to hold that report, and to show these plots. */
async function expectPage(
  file: string,
  report: SourceReport | DestReport,
  plots: readonly string[],
): Promise<Record<string, number>> {
  const seen = await seePage(await theBrowser(), file);
  const schema = report.role === "source" ? sourceReportSchema : destReportSchema;
  expect(schema.parse(seen.report)).toEqual(report);
  expect(seen.plots).toEqual([...plots]);
  return seen.moved;
}

const sumOf = (...counts: readonly number[]): number => counts.reduce((sum, one) => sum + one, 0);

/** The map of a source's page has every page that the report says was sent, by kind. */
function expectSent(moved: Record<string, number>, report: SourceReport): void {
  const { precopyNormal, precopyZero, pushedNormal, pushedZero } = report.pages;
  const { requestedNormal, requestedZero, repeated } = report.pages;
  expect(moved["precopy"] ?? 0).toBe(precopyNormal + precopyZero);
  expect(sumOf(moved["push"] ?? 0, moved["replay"] ?? 0)).toBe(pushedNormal + pushedZero);
  expect(moved["request"] ?? 0).toBe(requestedNormal + requestedZero + repeated);
}

/** The same at a destination, where pages that were asked for may come beside those pushed. */
function expectReceived(moved: Record<string, number>, report: DestReport): void {
  const { precopyNormal, precopyZero, pushedNormal, pushedZero } = report.pages;
  const urgent = report.pages.urgentNormal + report.pages.urgentZero;
  expect(moved["precopy"] ?? 0).toBe(precopyNormal + precopyZero);
  expect(sumOf(moved["push"] ?? 0, moved["request"] ?? 0)).toBe(pushedNormal + pushedZero + urgent);
  if (report.urgentChannel) expect(moved["request"] ?? 0).toBe(urgent);
}

requireOrSkip(needUserfaultfd(), needChromium())(
  "both ends of a stress guest show what moved, and agree with their reports",
  async () => {
    const [here, there] = [place.file("source.html"), place.file("dest.html")];
    const { source, dest } = await move({
      guest: "stress:size=16MiB,blocks=3,workers=4,rate=unlimited,discard=0,duration=50ms",
      // So slow that most pages are asked for before they are pushed.
      sourceFlags: [
        ...["--switchover", "rounds=1", "--max-postcopy-bandwidth", "4MiB/s"],
        ...["--report", here],
      ],
      destFlags: ["--report", there],
    });
    expectMoved(source, dest, pages("16MiB"));
    const plots = [...OVER_TIME, "RAM arriving"];
    const came = await expectPage(there, dest.report, [...WAITS, ...plots]);
    expectReceived(came, dest.report);
    expect(came["request"]).toBeGreaterThan(0);
    const left = await expectPage(here, source.report, [...ANSWERS, ...OVER_TIME, "RAM leaving"]);
    expectSent(left, source.report);
    const { missing } = dest.report.pages;
    expect(dest.report.faults.remoteShare).toBeCloseTo(dest.report.faults.remote / missing, 12);
    expect(source.report.requests.remoteShare).toBeGreaterThan(0);
  },
);

requireOrSkip(
  needQemuVersion("7.2"),
  needUserfaultfd(),
  needChromium(),
)("a guest of QEMU 7.2 that is kept, and that is restored there twice", async () => {
  const snapshot = place.file("kept");
  {
    await using qemu = await startQemu();
    await qemu.waitForRounds(3);
    await enablePostcopy(qemu);
    const file = place.file("kept.html");
    const report = await captureQemu(qemu, snapshot, { round: 1, flags: ["--report", file] });
    const moved = await expectPage(file, report, [...OVER_TIME, "RAM arriving"]);
    expectReceived(moved, report);
    expect(moved["precopy"]).toBeGreaterThan(0);
  }
  {
    await using qemu = await startQemu({ incoming: "defer" });
    await restoreIntoQemu(snapshot, qemu);
  }
  await using qemu = await startQemu({ incoming: "defer" });
  const file = place.file("restored.html");
  const report = await restoreIntoQemu(snapshot, qemu, { flags: ["--report", file] });
  // In the second restore nothing may be left to ask for.
  const answers = report.requestServiceNs === null ? [] : ANSWERS;
  const moved = await expectPage(file, report, [...answers, ...OVER_TIME, "RAM leaving"]);
  expectSent(moved, report);
  expect(moved["replay"]).toBeGreaterThan(0);
});

requireOrSkip(
  needQemuVersion("11.1"),
  needUserfaultfd(),
  needChromium(),
)(
  "QEMUs that are driven at both ends show what they tell, and why the rest is not there",
  async () => {
    const monitors = ["source", "dest"].map((name) => place.file(`${name}.qmp`));
    const [sending = "", receiving = ""] = monitors;
    const common = { program: qemuProgram("11.1"), machine: machineOf("11.1") };
    const monitor = (path: string): string[] => ["-qmp", `unix:${path},server=on,wait=off`];
    await using source = await startQemu({ ...common, extraArguments: monitor(sending) });
    await using _dest = await startQemu({
      ...{ ...common, incoming: "defer", extraArguments: monitor(receiving) },
    });
    await source.waitForRounds(3);
    const [here, there] = [place.file("driven.html"), place.file("driving.html")];
    let sent: ReturnType<typeof runPostcopy> | undefined;
    const to = ["--listen", "tcp:127.0.0.1:0", "--report", there];
    const got = await runPostcopy(["dest", "--guest", `qemu:${receiving}`, ...to], (event) => {
      if (event["event"] !== "listening") return;
      const flags = ["--to", String(event["peer"]), "--switchover", "now", "--report", here];
      sent = runPostcopy(["source", "--guest", `qemu:${sending}`, ...flags]);
    });
    if (sent === undefined) throw new Error(`dest never listened:\n${got.stderr}`);
    await expectPage(here, sourceReportOf(await sent), OVER_TIME);
    const seen = ["Remote faults as QEMU saw them", "Remote faults as QEMU saw them, cumulative"];
    await expectPage(there, destReportOf(got), seen);
  },
);
