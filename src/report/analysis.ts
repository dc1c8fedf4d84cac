/**
 * What `analyze` finds in a stream, a snapshot or memory files: one object, versioned, strict. The same schema
 * makes docs/analysis.schema.json (scripts/schema.ts). Offsets are bytes from the start of the file
 * or, where it is compressed, of the unpacked stream; what is not there, or not known, is null.
 */
import * as z from "zod";

/** Raised when a field changes its meaning or goes; new fields do not raise it. */
export const ANALYSIS_VERSION = 1;

const count = z.int().nonnegative();
const offset = z.int().nonnegative();

const problem = z
  .strictObject({
    code: z.string().describe("Stable, upper case, for scripts"),
    message: z.string().describe("What is wrong, and at which byte"),
    hint: z.string().nullable(),
  })
  .describe("What is damaged");

const pageKinds = z
  .strictObject({
    normal: count,
    zero: count,
    xbzrle: count,
    compressed: count,
  })
  .describe("Page records, by how the content of the page stands in the stream");

const discards = z.strictObject({ commands: count, ranges: count, bytes: count });

const device = z
  .strictObject({
    name: z.string().nullable().describe("null: no header stands at its first byte"),
    instanceId: count,
    versionId: count,
    sectionId: count,
    at: offset.describe("In the stream, or of a snapshot in its package"),
    bytes: count.describe("With header and footer"),
    proven: z
      .boolean()
      .describe("Whether it is this section alone. If not, what it holds cannot be told apart"),
  })
  .describe("The state of one device");

const devicesSchema = z.strictObject({
  where: z.enum(["package", "stream"]),
  at: offset,
  bytes: count.describe("Of all sections together"),
  described: z
    .boolean()
    .nullable()
    .describe("Whether the description lists just these; null where there is none"),
  sections: z.array(device),
});

const blockSchema = z.strictObject({
  name: z.string(),
  bytes: count,
  pageSize: count,
  guestPhysicalAddress: count.nullable(),
  records: pageKinds,
  pagesMissing: count
    .nullable()
    .describe("Pages without content at the end: never sent, or discarded and not sent again"),
  discards,
});

const roundSchema = z
  .strictObject({
    phase: z
      .enum(["precopy", "stopped", "postcopy"])
      .describe("stopped: the guest stands, and the rest is sent in one go"),
    round: count.nullable().describe("Of precopy: passes over memory, from 1"),
    at: offset.describe("Of its first record"),
    records: pageKinds,
    bytes: count.describe("From its first record to the next round's, or to the end of RAM"),
  })
  .describe("Pages that were sent in one pass over memory");

const stepSchema = z
  .strictObject({
    at: offset,
    what: z.string().describe("QEMU's name of the command or section"),
    detail: z.string().nullable(),
    times: count.describe("How often it comes in a row"),
    inPackage: z.boolean(),
  })
  .describe("A command or a section");

const streamSchema = z.strictObject({
  version: z.literal(ANALYSIS_VERSION),
  kind: z.literal("stream"),
  path: z.string(),
  fileBytes: count.nullable().describe("null for a pipe"),
  compression: z.string().nullable(),
  libvirt: z
    .strictObject({
      format: z.string(),
      wasRunning: z.boolean(),
      xml: z.string(),
      cookie: z.string(),
      streamAt: offset,
    })
    .nullable()
    .describe("The head of a libvirt save image"),
  machineType: z.string().nullable(),
  targetPageSize: count,
  capabilities: z.array(z.string()).describe("Only those that change the format are listed"),
  uuid: z.string().nullable(),
  ending: z
    .enum(["precopy", "postcopy"])
    .nullable()
    .describe("How the guest is switched over; null where the stream ends before"),
  advise: z.strictObject({ pageSizeSummary: count, targetPageSize: count }).nullable(),
  returnPath: z.boolean(),
  blocks: z.array(blockSchema),
  records: pageKinds,
  rounds: z.array(roundSchema),
  repeatedAfterSwitch: count.describe("Pages sent twice after the switch, which QEMU refuses"),
  multifdFlushes: count,
  discards,
  package: z.strictObject({ at: offset, bytes: count }).nullable(),
  earlyDevices: z.array(device).describe("Devices whose state comes ahead of memory"),
  devices: devicesSchema.nullable(),
  bytes: z
    .strictObject({
      opening: count,
      commands: count,
      ram: count,
      pages: count.describe("Content of pages alone; a part of ram"),
      package: count,
      devices: count,
      description: count,
      total: count,
    })
    .describe("Bytes by part; ram, and so total, counts what mapped-ram leaves room for"),
  steps: z.array(stepSchema),
  stepsOmitted: count.describe("Commands and sections behind those listed"),
  notes: z.array(z.string()).describe("What is unusual about a stream that is in order"),
  complete: z.boolean(),
  endAt: offset.describe("Up to where it was read"),
  problem: problem.nullable(),
});

const snapshotSchema = z.strictObject({
  version: z.literal(ANALYSIS_VERSION),
  kind: z.literal("snapshot"),
  path: z.string(),
  diskBytes: count,
  program: z.string(),
  createdAt: z.string(),
  machineType: z.string(),
  targetPageSize: count,
  uuid: z.string().nullable(),
  blocks: z.array(
    z.strictObject({
      name: z.string(),
      bytes: count,
      pageSize: count,
      file: z.string(),
      pagesStored: count,
      pagesDamaged: count.nullable().describe("null: pages were not checked (--verify)"),
    }),
  ),
  package: z.strictObject({ bytes: count, pings: z.array(count) }).nullable(),
  devices: devicesSchema.nullable(),
  descriptionBytes: count
    .nullable()
    .describe("Of the devices' description, which comes only with a completion in precopy"),
  workingSetPages: count.nullable().describe("Pages that restores have asked for"),
  pagesVerified: count.nullable(),
  notes: z.array(z.string()),
  complete: z.boolean(),
  problems: z.array(problem),
});

const memorySchema = z
  .strictObject({
    version: z.literal(ANALYSIS_VERSION),
    kind: z.literal("memory"),
    path: z.string().describe("The files as a GUEST word"),
    bytes: count.describe("Of the guest's memory"),
    targetPageSize: count,
    files: z.array(
      z.strictObject({
        path: z.string(),
        diskBytes: count,
        pagesStored: count.describe("Pages that are no hole"),
        pagesServed: count.describe("Those that no later file has"),
      }),
    ),
    pagesAbsent: count.describe("Pages that no file has, which are zeros"),
    workingSetPages: count.nullable().describe("Pages that restores have asked for"),
    notes: z.array(z.string()),
  })
  .describe("Memory files of Firecracker: a full snapshot's, and those of diffs over it");

export const analysisSchema = z
  .discriminatedUnion("kind", [streamSchema, snapshotSchema, memorySchema])
  .meta({ title: "postcopy analysis" });

export type Analysis = z.infer<typeof analysisSchema>;
export type StreamAnalysis = z.infer<typeof streamSchema>;
export type MemoryAnalysis = z.infer<typeof memorySchema>;
export type SnapshotAnalysis = z.infer<typeof snapshotSchema>;
export type PageKinds = z.infer<typeof pageKinds>;
export type AnalysedDevices = z.infer<typeof devicesSchema>;
export type Problem = z.infer<typeof problem>;
