/** docs/qemu.md: every cell of its tables names a test that is registered under just that name. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { tablesIn } from "../helpers/document-tables.ts";
import { registeredTests } from "../helpers/registered-tests.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";

/** What a QEMU cannot do itself. */
const IMPOSSIBLE = "–";

const sections = readFileSync(join(PROJECT_ROOT, "docs", "qemu.md"), "utf8")
  .split(/^## /m)
  .slice(1);
const listing = sections.find((section) => section.startsWith("The tests\n")) ?? "";
const listed = tablesIn(listing).map(([name = "", file = "", title = ""]) => ({
  name,
  file: `tests/${file.replaceAll("`", "")}`,
  title,
}));
const cells = sections
  .filter((section) => section !== listing)
  .flatMap((section) => tablesIn(section))
  .flatMap(([row = "", ...of]) => of.map((cell) => ({ row, cell })));

test("every cell names tests of the list, or says that QEMU cannot do it", () => {
  const known = new Set(listed.map(({ name }) => name));
  const wrong = cells.filter(({ cell }) => {
    return cell !== IMPOSSIBLE && !cell.split(", ").every((name) => known.has(name));
  });
  expect(wrong).toEqual([]);
  expect(cells.length).toBeGreaterThan(0);
});

test("every test of the list stands in a cell, and once in the list", () => {
  const named = new Set(cells.flatMap(({ cell }) => cell.split(", ")));
  expect(listed.filter(({ name }) => !named.has(name))).toEqual([]);
  expect(new Set(listed.map(({ name }) => name)).size).toBe(listed.length);
});

test(
  "every test of the list is registered in its file under its name",
  async () => {
    const files = [...new Set(listed.map(({ file }) => file))];
    expect(files.filter((file) => !existsSync(join(PROJECT_ROOT, file)))).toEqual([]);
    const registered = await registeredTests(files);
    const missing = listed.filter(({ file, title }) => registered.get(file)?.has(title) !== true);
    expect(missing).toEqual([]);
  },
  LONG_TEST_MS,
);
