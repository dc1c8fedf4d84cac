/**
 * The events of --json: one JSON object a line on standard output, each with `event` and `time`.
 * The schemas make docs/events.schema.json (scripts/schema.ts), which is the contract with scripts.
 */
import * as z from "zod";
import { analysisSchema } from "./analysis.ts";
import { downtimeSchema, reportSchema, roundSchema, switchoverSchema } from "./report.ts";

const count = z.int().nonnegative();
const nonnegative = z.number().nonnegative();
const time = z.iso.datetime();

function eventSchema<Name extends string, Shape extends z.core.$ZodLooseShape>(
  name: Name,
  description: string,
  shape: Shape,
) {
  return z.strictObject({ event: z.literal(name), time, ...shape }).describe(description);
}

const errorShape = {
  code: z.string().describe("Stable, upper case, for scripts"),
  message: z.string().describe("The sentences of the error and its causes"),
  hints: z.array(z.string()).describe("What can be done about it"),
  exitCode: z.int(),
};

/** Every event there is. */
export const eventsSchema = z
  .discriminatedUnion("event", [
    eventSchema("listening", "The destination waits for its peer", {
      peer: z.string().describe("The address as bound: a port of 0 is replaced by the real one"),
    }),
    eventSchema("handover", "A VMM has handed its guest's memory over", {
      pid: count.describe("Its process; 0 where that is in none of our pid namespaces"),
      regions: count,
      bytes: count,
    }),
    eventSchema("connected", "The two ends have found each other", {
      peer: z.string(),
    }),
    eventSchema("channels", "It is decided which channels there are, ahead of the switchover", {
      urgentChannel: z.boolean().describe("Whether requests have a channel of their own"),
      pushChannels: count.describe("Connections that the push goes on, the main one among them"),
    }),
    eventSchema("guest", "What is being moved", {
      guest: z.string(),
      blocks: z.array(z.strictObject({ name: z.string(), bytes: count, pageSize: count })),
    }),
    eventSchema("phase", "A phase begins", { phase: z.string() }),
    eventSchema("round", "A precopy round is over", roundSchema.shape),
    eventSchema("switchover", "The guest was stopped at the source", switchoverSchema.shape),
    eventSchema("running", "The guest runs at the destination", {
      sinceStartMs: nonnegative,
      downtime: downtimeSchema.nullable(),
    }),
    eventSchema("drained", "No page is missing any more", { sinceStartMs: nonnegative }),
    eventSchema("stayed", "The migration failed and the guest ran on at the source", {
      operations: count.describe("What it did since"),
      pagesChecked: count,
      pagesWrong: count,
    }),
    eventSchema("progress", "How far it is; twice a second", {
      role: z.enum(["source", "dest"]),
      phase: z.string(),
      round: count.nullable(),
      elapsedMs: nonnegative,
      bytes: count,
      donePages: count,
      arrivedPages: count.describe("Were there before this process began (--resume)"),
      remainingPages: count.nullable(),
      dirtyPages: count.nullable(),
      faults: count,
      bytesPerSecond: nonnegative,
      pagesPerSecond: nonnegative,
      percent: z.number().min(0).max(100).nullable(),
      etaMs: nonnegative.nullable(),
    }),
    eventSchema("report", "The report at the end", { report: reportSchema }),
    eventSchema("warning", "Something is not as it should be; the work goes on", {
      code: z.string(),
      message: z.string(),
    }),
    eventSchema("error", "The command failed; always the last event", errorShape),
    eventSchema("bench", "What `bench` measured", {
      results: z.looseObject({}).describe("As docs/bench.schema.json says"),
    }),
    eventSchema("probe", "One probe of `check`", {
      name: z.string(),
      group: z.enum(["required", "recommended", "optional"]),
      state: z.enum(["ok", "limited", "missing"]),
      detail: z.string(),
      fix: z.string().nullable().describe("A command that would mend it"),
    }),
    eventSchema("analysis", "What `analyze` found", { analysis: analysisSchema }),
    eventSchema("entry", "An entry of the journal, as `journal` lists or forgets it", {
      name: z.string(),
      path: z.string().describe("Its file"),
      state: z
        .enum(["committing", "moved", "damaged"])
        .describe("committing: the guest may be at the peer; moved: all of it is"),
      guest: z.string().nullable(),
      peer: z.string().nullable(),
      since: time.nullable(),
      sending: z.boolean().describe("Whether the process that sends it is alive"),
    }),
    eventSchema("check", "What this host can do", {
      source: z.boolean(),
      dest: z.boolean(),
    }),
  ])
  .meta({ title: "postcopy --json event" });

export type Event = z.infer<typeof eventsSchema>;

/** An event without its time, which the sink adds. */
export type NewEvent = Event extends infer One
  ? One extends Event
    ? Omit<One, "time">
    : never
  : never;
