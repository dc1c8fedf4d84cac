/** docs/failures.md: every row is whole, and names tests that are registered under just that name. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { tablesIn } from "../helpers/document-tables.ts";
import { registeredTests } from "../helpers/registered-tests.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";

const rows = tablesIn(readFileSync(join(PROJECT_ROOT, "docs", "failures.md"), "utf8"));
/** The tests of a row: `file`: title, one a line of the cell. */
const named = rows.flatMap((cells) =>
  (cells[3] ?? "").split("<br>").map((text) => {
    const [, file = "", title = ""] = /^`([^`]+)`: (.+)$/.exec(text.trim()) ?? [];
    return { text, file: `tests/${file}`, title };
  }),
);

test("every row says what breaks, when, what happens, and which test shows it", () => {
  expect(rows.length).toBeGreaterThan(0);
  expect(rows.filter((cells) => cells.length !== 4 || cells.includes(""))).toEqual([]);
  expect(named.filter(({ title }) => title === "")).toEqual([]);
});

test(
  "every test that is named is registered in its file",
  async () => {
    const files = [...new Set(named.map(({ file }) => file))];
    expect(files.filter((file) => !existsSync(join(PROJECT_ROOT, file)))).toEqual([]);
    const registered = await registeredTests(files);
    const missing = named.filter(({ file, title }) => registered.get(file)?.has(title) !== true);
    expect(missing).toEqual([]);
  },
  LONG_TEST_MS,
);
