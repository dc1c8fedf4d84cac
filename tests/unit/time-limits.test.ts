/** The time limits that ARCHITECTURE.md names are those of the code. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { parseDuration } from "../../src/util/duration.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";

const text = readFileSync(join(PROJECT_ROOT, "ARCHITECTURE.md"), "utf8");
const [, section = ""] = /^## Time limits\n(.*?)^## /ms.exec(text) ?? [];

/** "`NAME_MS` (30 s)": what the code calls it, and how long it is. */
const named = [...section.matchAll(/`([A-Z_]+_MS)` \(([^)]+)\)/g)].map(
  ([, name = "", time = ""]) => {
    return { name, ms: parseDuration(time) };
  },
);

/** The value of a constant of that name, wherever it is. */
async function valueOf(name: string): Promise<number | undefined> {
  const declaration = new RegExp(`^(?:export )?const ${name} = ([\\d_]+);`, "m");
  for await (const path of new Bun.Glob("src/**/*.ts").scan(PROJECT_ROOT)) {
    const [, digits] = declaration.exec(await Bun.file(join(PROJECT_ROOT, path)).text()) ?? [];
    if (digits !== undefined) return Number(digits.replaceAll("_", ""));
  }
  return undefined;
}

test("every limit that is named has just that value", async () => {
  expect(named.length).toBeGreaterThan(5);
  const found = await Promise.all(
    named.map(async ({ name }) => ({ name, ms: await valueOf(name) })),
  );
  expect(found).toEqual(named);
});
