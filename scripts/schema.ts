/**
 * Writes the JSON Schemas of the report, of an analysis, of benchmarks and of the --json events into docs/.
 * A test checks that the files are current. Usage: bun scripts/schema.ts
 */
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { benchResultsSchema } from "../src/bench/result.ts";
import { analysisSchema } from "../src/report/analysis.ts";
import { eventsSchema } from "../src/report/events.ts";
import { reportSchema } from "../src/report/report.ts";

/** File in docs/ to its text. */
export function schemaFiles(): ReadonlyMap<string, string> {
  const textOf = (schema: z.ZodType): string =>
    `${JSON.stringify(z.toJSONSchema(schema, { reused: "ref" }), null, 2)}\n`;
  return new Map([
    ["analysis.schema.json", textOf(analysisSchema)],
    ["report.schema.json", textOf(reportSchema)],
    ["bench.schema.json", textOf(benchResultsSchema)],
    ["events.schema.json", textOf(eventsSchema)],
  ]);
}

if (import.meta.main) {
  const docs = fileURLToPath(new URL("../docs/", import.meta.url));
  for (const [name, text] of schemaFiles()) await Bun.write(docs + name, text);
}
