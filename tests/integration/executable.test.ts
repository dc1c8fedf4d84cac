/**
 * The compiled executable, as it is copied onto hosts: two copies of it, in a directory with nothing
 * else in it, with the sources hidden (an empty file system lies over them), move a guest.
 */
import { afterAll, expect, test } from "bun:test";
import { copyFileSync, existsSync } from "node:fs";
import { buildExecutable } from "../../scripts/build.ts";
import { destReportSchema } from "../../src/report/report.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";
import { BUILT_EXECUTABLE, PROJECT_ROOT, run, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const workshop = new TemporaryDirectory("build");
afterAll(() => workshop[Symbol.asyncDispose]());

let building: Promise<void> | undefined;

/** The path of the executable; built once. */
async function executable(): Promise<string> {
  if (BUILT_EXECUTABLE !== undefined) return BUILT_EXECUTABLE;
  const outfile = workshop.file("postcopy");
  await (building ??= buildExecutable({ projectRoot: PROJECT_ROOT, outfile }));
  return outfile;
}

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
    await using directory = new TemporaryDirectory("executable");
    const built = await executable();
    for (const name of ["one", "two"]) copyFileSync(built, directory.file(name));
    const options = { cwd: directory.path };

    const check = await run(withoutSources(directory.file("one"), "check", "--json"), options);
    expect(check).toMatchObject({ exitCode: 0, signal: null });
    expect(check.stdout).toContain('"dest":true');

    const measure = ["bench", "--quick", "--only", "primitives", "--json"];
    const bench = await run(withoutSources(directory.file("one"), ...measure), options);
    expect(bench).toMatchObject({ exitCode: 0, signal: null });
    expect(bench.stdout).toContain('"name":"hand-over, in poll"');

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

/** Files that Bun reads in the directory it is started in, each with orders to run evil.ts. */
const FILES_WITH_ORDERS: Readonly<Record<string, string>> = {
  "evil.ts": 'require("node:fs").writeFileSync("evil-ran", "");',
  ".env": "BUN_OPTIONS=--preload=./evil.ts\nEVIL=1\n",
  "bunfig.toml": 'preload = ["./evil.ts"]\n',
  "tsconfig.json": '{ "compilerOptions": { "paths": { "*": ["./evil.ts"] } } }',
  "package.json": '{ "imports": { "#*": "./evil.ts" }, "browser": { "node:fs": "./evil.ts" } }',
};

/** Variables that Bun and Node know: the program ignores them, or does not start. */
const VARIABLES_WITH_ORDERS: readonly (readonly [string, string, "ignored" | "refused"])[] = [
  ["BUN_OPTIONS", "--preload=./evil.ts", "refused"],
  ["BUN_OPTIONS", "--smol", "refused"],
  ["BUN_INSPECT", "127.0.0.1:0", "refused"],
  ["BUN_INSPECT_PRELOAD", "./evil.ts", "refused"],
  ["BUN_JSC_useJIT", "0", "refused"],
  ["BUN_CONFIG_FILE", "./bunfig.toml", "ignored"],
  ["NODE_OPTIONS", "--require=./evil.ts", "ignored"],
  ["NODE_PATH", ".", "ignored"],
];

test(
  "the executable takes no orders from the directory it is started in, nor from variables",
  async () => {
    await using directory = new TemporaryDirectory("orders");
    const built = await executable();
    for (const [name, text] of Object.entries(FILES_WITH_ORDERS)) {
      await Bun.write(directory.file(name), text);
    }
    const start = (environment: Record<string, string>) =>
      run([built, "--version"], { cwd: directory.path, environment });
    expect(await start({})).toMatchObject({ exitCode: 0, stderr: "" });
    for (const [name, value, fate] of VARIABLES_WITH_ORDERS) {
      const { exitCode, stdout } = await start({ [name]: value });
      expect([name, exitCode === 0, stdout !== ""]).toEqual([
        name,
        fate === "ignored",
        fate === "ignored",
      ]);
      expect([name, existsSync(directory.file("evil-ran"))]).toEqual([name, false]);
    }
  },
  LONG_TEST_MS,
);
