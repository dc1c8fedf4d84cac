/** The C program beside the benchmarks: what the machine allows. Built once for each of its texts. */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT, run } from "../helpers/spawn.ts";

const SOURCES = join(import.meta.dir, "c");
const FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];
const RUN_LIMIT_MS = 180_000;

/** Runs the program with these words; gives what its JSON says. */
export async function runLimit<Answer>(...words: readonly string[]): Promise<Answer> {
  const command = [await buildLimit(), ...words];
  const { exitCode, stdout, stderr } = await run(command, { lifeMs: RUN_LIMIT_MS });
  if (exitCode !== 0) throw new Error(`${command.join(" ")} ended with ${exitCode}: ${stderr}`);
  return JSON.parse(stdout) as Answer;
}

/** The path of the program; its directory is named by what it was made of. */
async function buildLimit(): Promise<string> {
  const names = [...new Bun.Glob("*.{c,h}").scanSync({ cwd: SOURCES })].toSorted();
  const hasher = new Bun.CryptoHasher("sha256").update(FLAGS.join(" "));
  for (const name of names) hasher.update(await Bun.file(join(SOURCES, name)).bytes());
  const place = join(PROJECT_ROOT, ".cache", "bench", "c", hasher.digest("hex").slice(0, 16));
  const program = join(place, "limit");
  if (existsSync(program)) return program;
  mkdirSync(place, { recursive: true });
  const files = names.filter((name) => name.endsWith(".c"));
  // Another run may be building it as well: what has its name is whole.
  const unfinished = `${program}.${process.pid}`;
  const command = ["cc", ...FLAGS, "-o", unfinished, ...files];
  const { exitCode, stderr } = await run(command, { cwd: SOURCES });
  if (exitCode !== 0) throw new Error(`cc ended with ${exitCode}:\n${stderr}`);
  renameSync(unfinished, program);
  return program;
}
