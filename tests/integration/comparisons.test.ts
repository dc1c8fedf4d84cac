/** `postcopy bench`, as quick as it can be: what it says to people and to programs, and how it ends. */
import { describe, expect, test } from "bun:test";
import { benchResultsSchema } from "../../src/bench/result.ts";
import { eventsSchema } from "../../src/report/events.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const QUICK = ["bench", "--quick", "--only", "primitives"] as const;

describe("postcopy bench", () => {
  test(
    "prints a table, and gives the same results to programs and as a file",
    async () => {
      await using directory = new TemporaryDirectory("bench");
      const file = directory.file("results.json");
      const words = [...QUICK, "--runs", "2", "--json", "--report", file];
      const { exitCode, stdout, stderr } = await run(postcopyCommand(...words));
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      expect(stderr).toContain("(primitives, 2 runs each)\n");
      expect(stderr).toMatch(/^ {2}hand-over, parked +[\d.]+ .?s \(.+ to .+\)$/m);

      const event = eventsSchema.parse(JSON.parse(stdout));
      if (event.event !== "bench") throw new Error(`the event is ${event.event}`);
      const results = benchResultsSchema.parse(event.results);
      expect(results.benchmarks.map(({ id }) => id)).toEqual(["primitives"]);
      const times = results.benchmarks[0]?.entries.map(({ values }) => values["time"]) ?? [];
      expect(times.length).toBeGreaterThan(3);
      for (const ns of times) expect(ns).toEqual([expect.any(Number), expect.any(Number)]);
      expect(await Bun.file(file).json()).toEqual(results);
    },
    LONG_TEST_MS,
  );

  test("says nothing with --quiet but what is wrong", async () => {
    const { exitCode, stdout, stderr } = await run(postcopyCommand(...QUICK, "--quiet"));
    expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: "", stderr: "" });
  });

  test("knows its benchmarks", async () => {
    const { exitCode, stderr } = await run(postcopyCommand("bench", "--only", "primitive"));
    expect(exitCode).toBe(2);
    expect(stderr).toContain("did you mean primitives?");
  });
});
