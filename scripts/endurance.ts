/**
 * The same again and again, beyond what the test suite has time for. Stops at the first failure.
 *
 *     bun scripts/endurance.ts executable [--times 20] [--size 2GiB]
 *         two copies of dist/postcopy move a guest, in a directory with nothing else in it
 */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { DestReport, SourceReport } from "../src/report/report.ts";
import { spawn } from "../tests/helpers/spawn.ts";
import type { RunningProgram } from "../tests/helpers/spawn.ts";
import { TemporaryDirectory } from "../tests/helpers/temporary-directory.ts";

const PROJECT_ROOT = join(import.meta.dir, "..");
const EXECUTABLE = join(PROJECT_ROOT, "dist", "postcopy");
const RUN_LIMIT_MS = 300_000;
/** Memory that a role may hold beside the guest's own. */
const EXTRA_MIB_MAX = 150;

async function reportOf<Report>(program: RunningProgram): Promise<Report> {
  let report: Report | undefined;
  for await (const event of program.events()) {
    if (event["event"] === "report") report = event["report"] as Report;
  }
  const { exitCode, stderr } = await program.finish();
  if (report === undefined || exitCode !== 0) throw new Error(`exit ${exitCode}: ${stderr}`);
  return report;
}

async function moveExecutable(directory: string, size: string): Promise<string> {
  const options = { cwd: directory, lifeMs: RUN_LIMIT_MS };
  const listen = ["--guest", "stress", "--listen", "tcp:127.0.0.1:0", "--json"];
  await using dest = spawn([join(directory, "dest"), "dest", ...listen], options);
  const { 1: peer = "" } = await dest.stdout.waitForLine(/"event":"listening".*"peer":"([^"]+)"/);
  const how = ["--switchover", "rounds=1", "--json", "--no-journal"];
  const to = ["--guest", `stress:size=${size}`, "--to", peer, ...how];
  await using source = spawn([join(directory, "source"), "source", ...to], options);
  const [sent, arrived] = await Promise.all([
    reportOf<SourceReport>(source),
    reportOf<DestReport>(dest),
  ]);
  const { audit, memory, faults } = arrived;
  if (audit === null || audit.pagesWrong !== 0) throw new Error(JSON.stringify(arrived));
  const extra = (report: { memory: typeof memory }): string => {
    const mib = (report.memory.peakRssBytes - report.memory.guestBytes) / 1024 / 1024;
    if (mib > EXTRA_MIB_MAX) throw new Error(`${mib} MiB of memory above the guest's`);
    return mib.toFixed(0);
  };
  return (
    `checked ${audit.pagesChecked} pages, 0 wrong; ${faults.remote} remote faults; memory above ` +
    `the guest's: source ${extra(sent)} MiB, dest ${extra(arrived)} MiB`
  );
}

async function executable(times: number, size: string): Promise<void> {
  await using directory = new TemporaryDirectory("endurance");
  for (const name of ["source", "dest"]) copyFileSync(EXECUTABLE, directory.file(name));
  for (let turn = 1; turn <= times; turn++) {
    console.log(`${turn}/${times}: ${await moveExecutable(directory.path, size)}`);
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    times: { type: "string", default: "20" },
    size: { type: "string", default: "2GiB" },
  },
});
const [what] = positionals;
if (what === "executable") await executable(Number(values.times), values.size);
else throw new Error("say what: executable");
