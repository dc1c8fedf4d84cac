/**
 * docs/series.md: a row for each of the 42 patches, and every file that it names is there, with every
 * function or class that it names in it.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "../helpers/spawn.ts";

const rows = readFileSync(join(PROJECT_ROOT, "docs", "series.md"), "utf8")
  .split("\n")
  .map((line) => line.split("|").map((cell) => cell.trim()))
  .filter((cells) => /^\d\d$/.test(cells[1] ?? ""));

/** The paths that a cell names: `src/a.ts`, `unit/b.test.ts`, `src/c/`; not `functions`. */
function pathsOf(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)]
    .map((match) => match[1] ?? "")
    .filter((text) => text.includes("/") || text.endsWith(".md") || text.endsWith(".ts"));
}

/** The functions and classes that a cell names in parentheses behind a file, with that: `src/a.ts` (`b`, `#c`). */
function functionsOf(cell: string): [file: string, name: string][] {
  return [...cell.matchAll(/`([^`]+\.ts)` \((`[^)]+`)\)/g)].flatMap(([, file = "", names = ""]) =>
    [...names.matchAll(/`([^`]+)`/g)].map(([, name = ""]): [string, string] => [file, name]),
  );
}

test("has the 42 patches in their order", () => {
  const numbers = Array.from({ length: 42 }, (_, i) => String(i + 1).padStart(2, "0"));
  expect(rows.map((cells) => cells[1] ?? "")).toEqual(numbers);
});

test("names for each of them code and tests that exist", () => {
  for (const [, number, , , code = "", tests = ""] of rows) {
    const codePaths = pathsOf(code);
    const testPaths = pathsOf(tests).map((path) => join("tests", path));
    expect({ number, code: codePaths.length > 0, tests: testPaths.length > 0 }).toEqual({
      number,
      code: true,
      tests: true,
    });
    const missing = [...codePaths, ...testPaths].filter((p) => !existsSync(join(PROJECT_ROOT, p)));
    expect({ number, missing }).toEqual({ number, missing: [] });
  }
});

test("names functions and classes that are where it says", () => {
  const named = rows.flatMap(([, , , , code = ""]) => functionsOf(code));
  expect(named.length).toBeGreaterThan(10);
  const missing = named.filter(([file, name]) => {
    const text = readFileSync(join(PROJECT_ROOT, file), "utf8");
    const declared = `^(export )?(async )?(function|class) ${name}\\b|^  (async |get )?${name}\\(`;
    return !new RegExp(declared, "m").test(text);
  });
  expect(missing).toEqual([]);
});
