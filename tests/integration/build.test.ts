/**
 * What scripts/build.ts promises of an executable, shown on a program of four small files: it runs
 * as a copied file with its sources gone, finds its workers, keeps names, and takes no orders from
 * the directory it is started in.
 */
import { expect, test } from "bun:test";
import { copyFileSync, rmSync } from "node:fs";

import { buildExecutable } from "../../scripts/build.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const PROGRAM: Record<string, string> = {
  "package.json": '{ "version": "4.5.6" }',
  "src/cli.ts": `
    const { startWorker } = await import("./threads/crew.ts");
    declare const POSTCOPY_VERSION: string;
    class NamedError extends Error {}
    const worker = await startWorker();
    const name = new NamedError().constructor.name;
    const { FROM_DOTENV = "unset" } = process.env;
    console.log(JSON.stringify({ version: POSTCOPY_VERSION, worker, name, FROM_DOTENV }));
    process.exit(0);`,
  "src/threads/crew.ts": `
    export function startWorker(): Promise<unknown> {
      const worker = new Worker(new URL("./echo.worker.ts", import.meta.url));
      return new Promise((resolve, reject) => {
        worker.onmessage = (event) => resolve(event.data);
        worker.onerror = (event) => reject(new Error(event.message));
      });
    }`,
  "src/threads/echo.worker.ts": `
    import { greeting } from "../greeting.ts";
    postMessage(greeting);`,
  "src/greeting.ts": `export const greeting = "hello from a worker";`,
};

async function buildAndRun(): Promise<void> {
  await using project = new TemporaryDirectory("build");
  for (const [path, text] of Object.entries(PROGRAM)) await Bun.write(project.file(path), text);
  await buildExecutable({ projectRoot: project.path, outfile: project.file("dist/program") });
  const built = [...new Bun.Glob("**").scanSync({ cwd: project.file("dist"), dot: true })];
  expect(built).toEqual(["program"]);

  await using elsewhere = new TemporaryDirectory("elsewhere");
  const program = elsewhere.file("renamed");
  copyFileSync(project.file("dist/program"), program);
  rmSync(project.path, { recursive: true });
  await Bun.write(elsewhere.file(".env"), "FROM_DOTENV=set\n");
  await Bun.write(elsewhere.file("bunfig.toml"), 'preload = ["./evil.ts"]\n');
  await Bun.write(elsewhere.file("evil.ts"), 'console.log("evil");\n');

  const { exitCode, stdout, stderr } = await run([program], { cwd: elsewhere.path });
  expect(stderr).toBe("");
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    version: "4.5.6+unknown",
    worker: "hello from a worker",
    name: "NamedError",
    FROM_DOTENV: "unset",
  });
}

test(
  "an executable needs nothing but itself, and reads nothing beside it",
  buildAndRun,
  LONG_TEST_MS,
);
