/** docs/performance.md is made, not written: it says what its results say, and keeps what people wrote. */
import { describe, expect, test } from "bun:test";
import {
  DOCUMENT,
  performanceDocument,
  readProse,
  takenResults,
} from "../../../scripts/performance.ts";
import { BENCHMARKS } from "../../bench/all.ts";
import { sampleResults } from "./fixtures/results.ts";

test("docs/performance.md is what its parts say (bun scripts/performance.ts)", async () => {
  const text = performanceDocument(await takenResults(), await readProse());
  expect(await Bun.file(DOCUMENT).text()).toBe(text);
});

test("each benchmark is listed once, and each text belongs to one", async () => {
  const ids = BENCHMARKS.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const written = [...(await readProse()).keys()].filter((id) => id !== "introduction");
  for (const id of written) expect(ids).toContain(id);
  // A text about figures that nobody sees says nothing.
  const taken = (await takenResults()).benchmarks.map(({ id }) => id);
  for (const id of written) expect(taken).toContain(id);
});

describe("performanceDocument", () => {
  const prose = new Map([
    ["introduction", "# Introduction\n\nSee [the wire](../wire.md).\n"],
    ["faults", "# Faults\n\nThey are fast.\n"],
  ]);
  const text = performanceDocument(sampleResults, prose);

  test("says when, with what and where it was measured", () => {
    expect(text).toContain("Measured with postcopy 1.2.3 on Abacus, 2 cores, 8 GiB, Linux 6.1.0.");
    expect(text).toContain(", 2026-01-02 03:04: the median");
  });

  test("lists all targets, also those that are not met or could not be measured", () => {
    const rows = text.split("\n").filter((line) => /^\| (bulk|restore) /.test(line));
    expect(rows.map((row) => row.split("|").at(-2)?.trim())).toEqual([
      ...["met", "not met", "not measured", "met"],
      ...["met", "met", "not measured"],
    ]);
  });

  test("has the prose of a benchmark in its section, without a second title", () => {
    const section = text.split("\n## ").find((part) => part.startsWith("Remote faults"));
    expect(section).toEndWith("They are fast.\n\n".trimEnd() + "\n");
    expect(text.match(/^# /gm)).toHaveLength(1);
    expect(text).toContain("[the wire](wire.md)");
  });

  test("has tables whose rows are of one width", () => {
    for (const table of text.matchAll(/(?:^\|.*\n)+/gm)) {
      const widths = table[0]
        .trimEnd()
        .split("\n")
        .map((row) => Bun.stringWidth(row));
      expect(new Set(widths).size).toBe(1);
    }
  });
});
