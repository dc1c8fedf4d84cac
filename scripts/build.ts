/**
 * Compiles the single executable, dist/postcopy:
 *
 *     bun scripts/build.ts [--outfile PATH] [--target bun-linux-arm64]
 *
 * It holds Bun, the program, and every worker, and needs nothing of the checkout. What a root tool
 * must not do is turned off: it reads no .env, bunfig.toml, tsconfig.json or package.json of the
 * current directory, and runs no code but its own.
 */
import { mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const PROJECT_ROOT = join(import.meta.dir, "..");

export interface BuildOptions {
  /** Directory that holds package.json and src/. */
  projectRoot: string;
  outfile: string;
  /** Another platform than this one. */
  target?: Bun.Build.CompileTarget;
}

/** Builds the executable; a bundling error is thrown as Bun's AggregateError, with its messages. */
export async function buildExecutable(options: BuildOptions): Promise<void> {
  const { projectRoot, outfile } = options;
  const packageFile: unknown = await Bun.file(join(projectRoot, "package.json")).json();
  const { version } = packageFile as { version: string };
  // Bun leaves source maps beside what it builds (they are in the executable as well), so it builds
  // in a directory of its own. The last step is a rename, which works while an old one runs.
  mkdirSync(dirname(outfile), { recursive: true });
  const workshop = mkdtempSync(join(dirname(outfile), ".build-"));
  try {
    const built = join(workshop, basename(outfile));
    await Bun.build(buildConfig({ ...options, outfile: built }, version));
    renameSync(built, outfile);
  } finally {
    rmSync(workshop, { recursive: true, force: true });
  }
}

function buildConfig(options: BuildOptions, version: string): Bun.BuildConfig {
  const { projectRoot, outfile, target } = options;
  return {
    entrypoints: [join(projectRoot, "src", "cli.ts"), ...workerFiles(projectRoot)],
    // Paths inside the executable are relative to this directory, and the program, wherever its
    // parts come from, is one file at the top. With src/threads/ as the root, the workers lie
    // beside it, and `new URL("./fault.worker.ts", import.meta.url)` in a file of src/threads/
    // finds its worker in the executable as it does in the sources.
    root: join(projectRoot, "src", "threads"),
    compile: {
      outfile,
      autoloadDotenv: false,
      autoloadBunfig: false,
      autoloadTsconfig: false,
      autoloadPackageJson: false,
      // Only what is in the executable is ever run: no file beside it, also not by BUN_OPTIONS.
      execArgv: ["--disallow-code-generation-from-strings=strict"],
      ...(target === undefined ? {} : { target }),
    },
    // Bytecode halves the time to start. Without "esm" Bun would switch to CommonJS and write the
    // path of the building machine into import.meta.url.
    bytecode: true,
    format: "esm",
    // Names stay: errors carry the name of their class, and stack traces are read by people.
    minify: { whitespace: true, syntax: true, identifiers: false },
    sourcemap: "inline",
    define: { POSTCOPY_VERSION: JSON.stringify(`${version}+${commitOf(projectRoot)}`) },
  };
}

/** Every worker is an entry point of its own: Bun does not look for them in the program. */
function workerFiles(projectRoot: string): string[] {
  const threads = join(projectRoot, "src", "threads");
  return [...new Bun.Glob("*.worker.ts").scanSync({ cwd: threads, absolute: true })].sort();
}

/** The commit that is built, ".dirty" behind it if files differ; "unknown" outside a checkout. */
function commitOf(projectRoot: string): string {
  if (Bun.which("git") === null) return "unknown";
  const describe = ["git", "describe", "--always", "--dirty=.dirty", "--abbrev=12", "--exclude=*"];
  const { exitCode, stdout } = Bun.spawnSync(describe, { cwd: projectRoot, stderr: "ignore" });
  return exitCode === 0 ? stdout.toString().trim() : "unknown";
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { outfile: { type: "string", default: "dist/postcopy" }, target: { type: "string" } },
  });
  const outfile = resolve(PROJECT_ROOT, values.outfile);
  await buildExecutable({
    projectRoot: PROJECT_ROOT,
    outfile,
    ...(values.target === undefined ? {} : { target: values.target as Bun.Build.CompileTarget }),
  });
  const megabytes = Bun.file(outfile).size / 1e6;
  console.log(`${values.outfile}: ${megabytes.toFixed(0)} MB`);
}

if (import.meta.main) await main();
