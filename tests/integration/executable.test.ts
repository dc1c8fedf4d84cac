/**
 * The compiled executable, as it is copied onto hosts: two copies of it, in a directory with nothing
 * else in it, with the sources hidden (an empty file system lies over them), move a guest.
 */
import { expect } from "bun:test";
import { copyFileSync } from "node:fs";
import { buildExecutable } from "../../scripts/build.ts";
import { destReportSchema } from "../../src/report/report.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";
import { PROJECT_ROOT, run, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

function needMounts(): Need {
  const allowed = Bun.spawnSync(["unshare", "--mount", "true"]).success;
  return { what: "a mount namespace", missing: allowed ? undefined : "run as root" };
}

/** A command that finds the project's directory empty. */
function withoutSources(...command: string[]): string[] {
  const script = 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, "sh", PROJECT_ROOT, ...command];
}

requireOrSkip(needUserfaultfd(), needMounts())(
  "two copies of the executable, away from its sources, move a guest",
  async () => {
    await using workshop = new TemporaryDirectory("build");
    await using directory = new TemporaryDirectory("executable");
    const built = workshop.file("postcopy");
    await buildExecutable({ projectRoot: PROJECT_ROOT, outfile: built });
    for (const name of ["one", "two"]) copyFileSync(built, directory.file(name));
    const options = { cwd: directory.path };

    const check = await run(withoutSources(directory.file("one"), "check", "--json"), options);
    expect(check).toMatchObject({ exitCode: 0, signal: null });
    expect(check.stdout).toContain('"dest":true');

    const listen = ["dest", "--guest", "stress", "--listen", "tcp:127.0.0.1:0", "--json"];
    await using dest = spawn(withoutSources(directory.file("two"), ...listen), options);
    const found = await dest.stdout.waitForLine(/"event":"listening".*"peer":"([^"]+)"/);
    const guest = "stress:size=32MiB,duration=100ms";
    const how = ["--switchover", "rounds=1", "--journal", directory.file("journal")];
    const send = ["source", "--guest", guest, "--to", found[1] ?? "", ...how];
    const source = await run(withoutSources(directory.file("one"), ...send), options);
    expect(source).toMatchObject({ exitCode: 0, signal: null, stdout: "" });
    let report: unknown;
    for await (const event of dest.events()) {
      if (event["event"] === "report") report = event["report"];
    }
    const { exitCode, stderr } = await dest.finish();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(destReportSchema.parse(report)).toMatchObject({
      outcome: "completed",
      audit: { pagesChecked: 8192, pagesWrong: 0 },
    });
  },
);
