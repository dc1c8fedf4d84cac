/** The names of the tests that a file registers, as Bun itself knows them, without running one. */
import { TemporaryDirectory } from "./temporary-directory.ts";
import { run } from "./spawn.ts";

/** A pattern that no name of a test matches. */
const NO_TEST = "^$";

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function unescapeXml(text: string): string {
  return text
    .replaceAll(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)))
    .replaceAll(/&(amp|lt|gt|quot|apos);/g, (_, name: string) => ENTITIES[name] ?? "");
}

/** The names of the tests of each of `files` (paths in the checkout). */
export async function registeredTests(
  files: readonly string[],
): Promise<Map<string, ReadonlySet<string>>> {
  await using directory = new TemporaryDirectory("tests");
  const report = directory.file("junit.xml");
  const reporter = ["--reporter=junit", `--reporter-outfile=${report}`];
  // Bun calls it a failure that nothing matched; the report lists what it would have matched with.
  await run([process.execPath, "test", "-t", NO_TEST, ...reporter, ...files]);
  const names = new Map(files.map((file) => [file, new Set<string>()]));
  for (const [, name = "", file = ""] of (await Bun.file(report).text()).matchAll(
    /<testcase name="([^"]*)"[^>]*? file="([^"]*)"/g,
  )) {
    names.get(file)?.add(unescapeXml(name));
  }
  return names;
}
